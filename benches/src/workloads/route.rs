//! [`Route`]: the keys that a scan should meet, one after the other.

use crate::data::{Known, Ledger};
use crate::engines::Direction;
use crate::error::{Error, Result};

/// The keys that a scan should meet, one after the other.
///
/// Beside writers, what was known of the keys before the scan is kept in a *window*: what was complete then must be
/// met, what came since may be.
pub(super) struct Route<'a> {
    ledger: &'a Ledger,
    direction: Direction,
    /// The next place in key order, of all keys or, while those are all there is, of the fills'; none past the end.
    next: Option<u64>,
    places: u64,
    /// How many places were passed.
    passed: usize,
    met: u64,
}

impl<'a> Route<'a> {
    /// From key `id` on, inclusive.
    pub(super) fn new(ledger: &'a Ledger, direction: Direction, id: u64) -> Self {
        let data = ledger.data();
        let inserts = ledger.has_inserts();
        let first = if inserts { data.place_of(id) } else { data.stratum_of(id) };
        let places = if inserts { data.keys() * 2 } else { data.keys() };
        Route { ledger, direction, next: Some(first), places, passed: 0, met: 0 }
    }

    /// Over everything.
    pub(super) fn of_all(ledger: &'a Ledger, direction: Direction) -> Self {
        let mut route = Route::new(ledger, direction, 0);
        route.next = match direction {
            Direction::Forward => Some(0),
            Direction::Reverse => route.places.checked_sub(1),
        };
        route
    }

    /// The key at a place.
    #[inline]
    fn id_at(&self, place: u64) -> u64 {
        let data = self.ledger.data();
        if self.places == data.keys() { data.loaded(place) } else { data.at_place(place) }
    }

    #[inline]
    fn after(&self, place: u64) -> Option<u64> {
        match self.direction {
            Direction::Forward => Some(place + 1).filter(|&next| next < self.places),
            Direction::Reverse => place.checked_sub(1),
        }
    }

    /// Writes what is known of the keys ahead into `window`, up to the `limit`-th that is there: what a scan of up to
    /// `limit` entries can meet, as long as nobody deletes.
    pub(super) fn look_ahead(&self, limit: usize, window: &mut Vec<Known>) {
        window.clear();
        let mut live = 0;
        let mut next = self.next;
        while let Some(place) = next.filter(|_| live < limit) {
            let known = self.ledger.know(self.id_at(place));
            live += usize::from(known.is_live());
            window.push(known);
            next = self.after(place);
        }
    }

    /// The next key with what was known of it before and what is known now; without a window nobody writes, and both
    /// are the same.
    #[inline]
    fn advance(&mut self, window: &[Known]) -> Option<(u64, Known, Known)> {
        let place = self.next?;
        let id = self.id_at(place);
        let now = self.ledger.know(id);
        let before = if window.is_empty() { now } else { *window.get(self.passed).unwrap_or(&Known::NOTHING) };
        self.next = self.after(place);
        self.passed += 1;
        Some((id, before, now))
    }

    /// Checks that the entry met is the next one.
    #[inline]
    pub(super) fn check(&mut self, key: &[u8], value: &[u8], window: &[Known]) -> Result<()> {
        while let Some((id, before, now)) = self.advance(window) {
            if !before.may_be_met(now) {
                continue;
            }
            match self.ledger.data().check_key(id, key) {
                Ok(()) => {
                    self.met += 1;
                    return self.ledger.check(id, before, value).map_err(in_scan);
                }
                Err(error) if before.must_be_met(now) => return Err(in_scan(error)),
                Err(_) => {}
            }
        }
        Err(Error::WrongAnswer(format!("scan: {key:02x?} is no key that is left to be met")))
    }

    /// Checks that nothing was left out after `count` of up to `limit` entries.
    pub(super) fn check_end(mut self, count: u64, limit: usize, window: &[Known]) -> Result<()> {
        if count != self.met {
            return Err(Error::WrongAnswer(format!("scan: {} entries came and {count} were counted", self.met)));
        }
        if count > limit as u64 {
            return Err(Error::WrongAnswer(format!("scan: {count} entries came where {limit} were asked for")));
        }
        if count == limit as u64 {
            return Ok(());
        }
        while let Some((id, before, now)) = self.advance(window) {
            if before.must_be_met(now) {
                return Err(Error::WrongAnswer(format!("scan: ended after {count} entries, before key {id}")));
            }
        }
        Ok(())
    }
}

#[cold]
fn in_scan(error: Error) -> Error {
    match error {
        Error::WrongAnswer(what) => Error::WrongAnswer(format!("scan: {what}")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, FillOrder};

    const LIMIT: usize = 3;

    /// The first key of stratum 2.
    fn first(ledger: &Ledger) -> u64 {
        ledger.data().at_place(4)
    }

    fn put(ledger: &Ledger, id: u64) {
        let claim = ledger.begin_put(id).unwrap();
        claim.complete();
    }

    /// Ten loaded keys, room for inserts, and where those of strata 2, 4 and 6 lie.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(&Dataset::new(10, 16, 100, 42).unwrap());
        ledger.make_room();
        (0..10).for_each(|stratum| put(&ledger, ledger.data().loaded(stratum)));
        ledger.fill(FillOrder::Ascending, 10);
        ledger
    }

    /// Meets `ids` with the values of `version` on the way from stratum 2 on.
    fn meet(ledger: &Ledger, window: &[Known], ids: &[u64], version: u64) -> Result<()> {
        let mut route = Route::new(ledger, Direction::Forward, first(ledger));
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for &id in ids {
            ledger.data().key(id, &mut key);
            ledger.data().value(id, version, &mut value);
            route.check(&key, &value, window)?;
        }
        route.check_end(ids.len() as u64, LIMIT, window)
    }

    fn window(ledger: &Ledger) -> Vec<Known> {
        let mut window = Vec::new();
        let route = Route::new(ledger, Direction::Forward, first(ledger));
        route.look_ahead(LIMIT, &mut window);
        window
    }

    #[test]
    fn without_writers_there_is_one_way() {
        let ledger = ledger();
        let loaded = |stratum| ledger.data().loaded(stratum);
        assert!(meet(&ledger, &[], &[loaded(2), loaded(3), loaded(4)], 1).is_ok());
        for wrong in [&[loaded(2), loaded(4)][..], &[loaded(3)], &[loaded(2), loaded(2)], &[loaded(2), loaded(3)]] {
            assert!(meet(&ledger, &[], wrong, 1).is_err(), "{wrong:?}");
        }
        assert!(meet(&ledger, &[], &[ledger.data().extra(2)], 1).is_err(), "never inserted");
        assert!(meet(&ledger, &[], &[loaded(2), loaded(3), loaded(4)], 2).is_err(), "never written");
    }

    #[test]
    fn what_is_inserted_meanwhile_may_be_met_and_need_not_be() {
        let ledger = ledger();
        let [two, three, four] = [2, 3, 4].map(|stratum| ledger.data().loaded(stratum));
        let new = ledger.data().extra(3);
        let early = window(&ledger);
        assert!(meet(&ledger, &early, &[two, three, four], 1).is_ok());
        put(&ledger, new);
        let mut with_new = [two, three, four, new];
        with_new.sort_by_key(|&id| ledger.data().place_of(id));
        assert!(meet(&ledger, &early, &[two, three, four], 1).is_ok());
        assert!(meet(&ledger, &early, &with_new[..3], 1).is_ok());
        assert!(meet(&ledger, &early, &[two, four], 1).is_err(), "one that was there is left out");
        let late = window(&ledger);
        assert!(meet(&ledger, &late, &with_new[..3], 1).is_ok());
        assert!(meet(&ledger, &late, &[two, three, four], 1).is_err(), "the new key was complete before");
    }

    #[test]
    fn what_is_put_meanwhile_may_be_old_or_new() {
        let ledger = ledger();
        let ids = [2, 3, 4].map(|stratum| ledger.data().loaded(stratum));
        let early = window(&ledger);
        ids.iter().for_each(|&id| put(&ledger, id));
        assert!(meet(&ledger, &early, &ids, 1).is_ok());
        assert!(meet(&ledger, &early, &ids, 2).is_ok());
        assert!(meet(&ledger, &window(&ledger), &ids, 1).is_err(), "the new ones were complete before");
        assert!(meet(&ledger, &early, &ids, 3).is_err());
    }

    #[test]
    fn the_end_is_the_end_both_ways() {
        for inserts in [false, true] {
            let ledger = if inserts { ledger() } else { Ledger::new(&Dataset::new(10, 16, 100, 42).unwrap()) };
            let id = ledger.data().loaded(9);
            if !inserts {
                put(&ledger, id);
            }
            let route = |direction| Route::of_all(&ledger, direction);
            for direction in [Direction::Forward, Direction::Reverse] {
                let error = route(direction).check_end(0, usize::MAX, &[]).unwrap_err().to_string();
                assert!(error.contains("ended after 0 entries"), "{error}");
                let count = if inserts { 10 } else { 1 };
                let mut places = 0;
                let mut all = route(direction);
                while let Some((_, before, _)) = all.advance(&[]) {
                    places += usize::from(before.is_live());
                }
                assert_eq!(places, count);
            }
        }
    }

    #[test]
    fn a_count_that_is_made_up_is_noticed() {
        let ledger = Ledger::new(&Dataset::new(10, 16, 100, 42).unwrap());
        let route = || Route::of_all(&ledger, Direction::Forward);
        assert!(route().check_end(0, 5, &[]).is_ok());
        assert!(route().check_end(1, 5, &[]).is_err());
    }
}
