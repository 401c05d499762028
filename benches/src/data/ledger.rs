//! [`Ledger`]: what the store should hold, key by key, also while threads write it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{Dataset, Permutation, VARIABLE};
use crate::error::{Error, Result};

/// The order in which the records of a fill came.
#[derive(Clone, Debug)]
pub enum FillOrder {
    /// That of their keys.
    Ascending,
    /// That of the permutation.
    Random(Permutation),
}

/// What the store should hold: of each key the number of its last write, whether that was a put, and whether a write
/// of it is under way.
///
/// A word of a key is four bytes. Writes of one key wait for each other, so their order is known, and a read may answer
/// exactly the states from the last one that was complete before it began ([`know`](Self::know)) to the last one begun
/// before it ended. A workload that deletes must not run beside readers: of the states in between, none is told to be
/// a delete.
///
/// *Records* number the keys that were written in the order they came: first those of the fill, then what workloads
/// inserted. So, of a fill that was cut short, only what came is chosen for reads.
#[derive(Debug)]
pub struct Ledger {
    data: Dataset,
    /// By stratum.
    loaded: Vec<AtomicU32>,
    /// By stratum; empty until there is [room](Self::make_room).
    extra: Vec<AtomicU32>,
    fill_order: FillOrder,
    filled: u64,
    insert_order: Permutation,
    inserts_begun: AtomicU64,
    inserts_done: AtomicU64,
    /// [`VARIABLE`] if writes have values of variable size.
    sizes: u64,
}

const LIVE: u32 = 1;
const PUT_UNDER_WAY: u32 = 2;
const DELETE_UNDER_WAY: u32 = 4;
const UNDER_WAY: u32 = PUT_UNDER_WAY | DELETE_UNDER_WAY;
/// The last put's value has a variable size.
const OF_VARIABLE_SIZE: u32 = 8;
const NUMBER_SHIFT: u32 = 4;
/// Writes of one key that can be numbered.
const MAX_NUMBER: u64 = (u32::MAX >> NUMBER_SHIFT) as u64;

/// Tells the order of inserts from those of fills and overwrites.
const INSERT_ROUND: u64 = u64::MAX;

/// What is known of a key at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known(u32);

/// The right to write one key, and the version to write; all others wait until it is [complete](Self::complete). If it
/// is dropped, nothing is known of the key but what was.
#[derive(Debug)]
#[must_use]
pub struct Claim<'a> {
    /// The key.
    pub id: u64,
    /// The version that a put has to write.
    pub version: u64,
    /// What was known before; exact, since nobody else writes the key.
    pub before: Known,
    word: &'a AtomicU32,
    /// What is known once it is complete.
    after: Known,
}

impl Claim<'_> {
    /// Notes that the write is complete.
    #[inline]
    pub fn complete(mut self) {
        self.before = self.after;
    }
}

impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: who knows that it is complete begins after it.
        self.word.store(self.before.0, Ordering::Release);
    }
}

impl Known {
    /// Nothing is known: the store may hold any version up to the newest, or none.
    pub const NOTHING: Known = Known(0);

    /// Whether the last complete write was a put.
    #[inline]
    pub fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    /// Whether it was ever written, completely or not.
    #[inline]
    pub fn is_written(self) -> bool {
        self.0 != 0
    }

    /// The version of the last complete write.
    #[inline]
    pub fn version(self) -> u64 {
        self.number() | if self.0 & OF_VARIABLE_SIZE == 0 { 0 } else { VARIABLE }
    }

    #[inline]
    fn number(self) -> u64 {
        u64::from(self.0 >> NUMBER_SHIFT)
    }

    /// The number of the last write that was begun.
    #[inline]
    fn begun(self) -> u64 {
        self.number() + u64::from(self.0 & UNDER_WAY != 0)
    }

    /// Whether a key of which this was known before a read and `now` after it must have been met.
    #[inline]
    pub fn must_be_met(self, now: Known) -> bool {
        self.is_live() && now.is_live() && now.0 & DELETE_UNDER_WAY == 0
    }

    /// Whether it may have been.
    #[inline]
    pub fn may_be_met(self, now: Known) -> bool {
        self.is_live() || now.is_live() || now.0 & PUT_UNDER_WAY != 0
    }
}

impl Ledger {
    /// The ledger of an empty store.
    pub fn new(data: &Dataset) -> Self {
        Ledger {
            loaded: words(data.keys()),
            extra: Vec::new(),
            fill_order: FillOrder::Ascending,
            filled: 0,
            insert_order: data.order(data.keys(), INSERT_ROUND),
            inserts_begun: AtomicU64::new(0),
            inserts_done: AtomicU64::new(0),
            sizes: 0,
            data: data.clone(),
        }
    }

    /// Keys and values.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// What it takes of the process's memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        (size_of_val(&self.loaded[..]) + size_of_val(&self.extra[..])) as u64
    }

    /// Makes [`insert`](Self::insert) possible.
    pub fn make_room(&mut self) {
        if self.extra.is_empty() {
            self.extra = words(self.data.keys());
        }
    }

    /// Says whether puts from now on have values of variable size.
    pub fn set_variable(&mut self, variable: bool) {
        self.sizes = if variable { VARIABLE } else { 0 };
    }

    /// Notes that a fill wrote `filled` records, in this order.
    pub fn fill(&mut self, order: FillOrder, filled: u64) {
        self.fill_order = order;
        self.filled = filled;
    }

    /// How many records were written, whether or not they have been deleted since.
    #[inline]
    pub fn records(&self) -> u64 {
        // Acquire: pairs with the end of an insert, so that its word is seen.
        self.filled + self.inserts_done.load(Ordering::Acquire)
    }

    /// The key of record `record`, of [`records`](Self::records).
    #[inline]
    pub fn id_of(&self, record: u64) -> u64 {
        match record.checked_sub(self.filled) {
            Some(insert) => self.data.extra(self.insert_order.at(insert)),
            None => self.data.loaded(match &self.fill_order {
                FillOrder::Ascending => record,
                FillOrder::Random(order) => order.at(record),
            }),
        }
    }

    /// Whether any key is there that the fills do not write.
    pub fn has_inserts(&self) -> bool {
        !self.extra.is_empty()
    }

    #[inline]
    fn word(&self, id: u64) -> Option<&AtomicU32> {
        let words = if self.data.is_loaded(id) { &self.loaded } else { &self.extra };
        words.get((id / 2) as usize)
    }

    /// What is known of a key now.
    #[inline]
    pub fn know(&self, id: u64) -> Known {
        // Acquire: a read that begins after this must answer the write that ended before.
        Known(self.word(id).map_or(0, |word| word.load(Ordering::Acquire)))
    }

    /// Begins a put of a key, after waiting for other writes of it.
    ///
    /// # Errors
    /// [`Error::Settings`] if the key was written 2^28 times.
    #[inline]
    pub fn begin_put(&self, id: u64) -> Result<Claim<'_>> {
        self.begin(id, PUT_UNDER_WAY)
    }

    /// Begins a delete of a key, after waiting for other writes of it.
    ///
    /// # Errors
    /// As [`begin_put`](Self::begin_put).
    #[inline]
    pub fn begin_delete(&self, id: u64) -> Result<Claim<'_>> {
        self.begin(id, DELETE_UNDER_WAY)
    }

    #[inline]
    fn begin(&self, id: u64, under_way: u32) -> Result<Claim<'_>> {
        let word = self.word(id).ok_or_else(|| Error::Settings(format!("there is no room for key {id}")))?;
        let mut known = word.load(Ordering::Acquire);
        loop {
            if known & UNDER_WAY != 0 {
                std::thread::yield_now();
                known = word.load(Ordering::Acquire);
                continue;
            }
            // Acquire and release: after the write before, and before what the engine is told.
            match word.compare_exchange_weak(known, known | under_way, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(other) => known = other,
            }
        }
        let before = Known(known);
        let number = (before.number() + 1) as u32;
        let put = under_way == PUT_UNDER_WAY;
        let flags = if put { LIVE } else { 0 } | if self.sizes == 0 { 0 } else { OF_VARIABLE_SIZE };
        let after = Known(number << NUMBER_SHIFT | flags);
        let claim = Claim { id, version: u64::from(number) | self.sizes, before, word, after };
        if before.number() == MAX_NUMBER {
            return Err(Error::Settings(format!("key {id} has been written {MAX_NUMBER} times: use more keys")));
        }
        Ok(claim)
    }

    /// The key to insert next.
    ///
    /// # Errors
    /// [`Error::Settings`] if there is no room left: a store can double.
    pub fn insert(&self) -> Result<u64> {
        // A number and nothing else.
        let insert = self.inserts_begun.fetch_add(1, Ordering::Relaxed);
        if insert >= self.extra.len() as u64 {
            return Err(Error::Settings("as many keys were inserted as loaded: there is no room for more".to_owned()));
        }
        Ok(self.data.extra(self.insert_order.at(insert)))
    }

    /// Notes that an insert is complete.
    pub fn inserted(&self) {
        // Release: who counts it sees its word.
        self.inserts_done.fetch_add(1, Ordering::Release);
    }

    /// Checks that `value` is one that a read may answer of key `id` if `before` was known when it began.
    ///
    /// # Errors
    /// [`Error::WrongAnswer`].
    #[inline]
    pub fn check(&self, id: u64, before: Known, value: &[u8]) -> Result<()> {
        if before.is_live() && self.data.is_version(id, before.version(), value) {
            // By far the most frequent case; only a writer can have made it a wrong answer, and that is older.
            return Ok(());
        }
        self.check_newer(id, before, value)
    }

    #[cold]
    fn check_newer(&self, id: u64, before: Known, value: &[u8]) -> Result<()> {
        let now = self.know(id);
        let newer = (before.number() + 1..=now.begun()).rev();
        if newer.into_iter().any(|number| self.data.is_version(id, number | self.sizes, value)) {
            return Ok(());
        }
        if !before.may_be_met(now) {
            return Err(Error::WrongAnswer(if now.is_written() {
                format!("key {id} was deleted and is there")
            } else {
                format!("key {id} was never written and is there")
            }));
        }
        Err(self.data.wrong_value(id, now.version(), value))
    }

    /// Checks that a read may find no value of key `id` if `before` was known when it began.
    ///
    /// # Errors
    /// [`Error::WrongAnswer`].
    #[inline]
    pub fn check_missing(&self, id: u64, before: Known) -> Result<()> {
        if before.must_be_met(self.know(id)) {
            return Err(Error::WrongAnswer(format!("key {id} is missing")));
        }
        Ok(())
    }

    /// How many keys have a value, and their bytes with those of the values. Nothing must be under way.
    pub fn live(&self) -> (u64, u64) {
        let strata = 0..self.data.keys();
        let loaded = strata.clone().map(|stratum| self.data.loaded(stratum));
        let extra = strata.take(self.extra.len()).map(|stratum| self.data.extra(stratum));
        let live = loaded.chain(extra).map(|id| (id, self.know(id))).filter(|(_, known)| known.is_live());
        live.fold((0, 0), |(keys, bytes), (id, known)| (keys + 1, bytes + self.data.entry_bytes(id, known.version())))
    }
}

fn words(count: u64) -> Vec<AtomicU32> {
    (0..count).map(|_| AtomicU32::new(0)).collect()
}

#[cfg(test)]
mod tests;
