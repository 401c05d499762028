//! The state: how often each word occurs, where, and how far each file was read. All three are written in the same
//! batches, so that they agree whenever the program is killed.

use std::collections::HashMap;
use std::io::BufRead;
use std::time::{Duration, Instant};

use siltstone::{Db, Keyspace, WriteBatch};

use crate::input::Input;
use crate::{Result, report};

/// Lines that are written as one batch.
const BATCH_LINES: u64 = 64;

/// Longer words are cut: a key is at most 64 KiB.
const MAX_WORD_BYTES: usize = 256;

/// What a run read and wrote.
#[derive(Default)]
pub struct Counted {
    pub files: u64,
    pub skipped: u64,
    pub bytes: u64,
    pub words: u64,
    pub puts: u64,
    pub gets: u64,
    pub batches: u64,
    pub reading: Duration,
    pub writing: Duration,
    pub elapsed: Duration,
}

struct State {
    db: Db,
    /// word -> occurrences, a little-endian u64
    counts: Keyspace,
    /// word, file, line -> the word's offset in the file
    index: Keyspace,
    /// file -> progress: offset, line, fingerprint
    files: Keyspace,
}

/// Reads the inputs into the state, from where an earlier run stopped.
pub fn count(db: &Db, inputs: &[Input]) -> Result<Counted> {
    let keyspace = |name| db.keyspace(name, Default::default());
    let state =
        State { db: db.clone(), counts: keyspace("counts")?, index: keyspace("index")?, files: keyspace("files")? };
    let bar = report::bar(inputs.iter().map(Input::bytes).sum());
    let mut counted = Counted::default();
    let started = Instant::now();
    for input in inputs {
        state.count_file(input, &mut counted)?;
        bar.inc(input.bytes());
    }
    bar.finish_and_clear();
    counted.elapsed = started.elapsed();
    Ok(counted)
}

/// Where reading a file goes on.
#[derive(Default)]
struct Place {
    offset: u64,
    line: u64,
    finished: bool,
}

impl State {
    fn count_file(&self, input: &Input, counted: &mut Counted) -> Result<()> {
        let mut place = self.place(input)?;
        if place.finished {
            counted.skipped += 1;
            return Ok(());
        }
        counted.files += 1;
        let mut text = input.open()?;
        skip(&mut *text, place.offset)?;
        while !place.finished {
            let before = place.line;
            let mut words: Vec<(Vec<u8>, u64, u64)> = Vec::new();
            while !place.finished && place.line < before + BATCH_LINES {
                place.finished = !read_line(&mut *text, &mut place, &mut words)?;
            }
            self.write(input, &place, words, counted)?;
        }
        counted.bytes += place.offset;
        Ok(())
    }

    fn place(&self, input: &Input) -> Result<Place> {
        let Some(fingerprint) = input.fingerprint() else { return Ok(Place::default()) };
        let Some(stored) = self.files.get(input.name())? else { return Ok(Place::default()) };
        let stored = String::from_utf8_lossy(&stored).into_owned();
        let mut parts = stored.splitn(4, ' ');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        let (offset, line, finished) = (number(), number(), number() == 1);
        // A file that has changed is counted again from its beginning.
        let same = parts.next() == Some(fingerprint);
        Ok(if same { Place { offset, line, finished } } else { Place::default() })
    }

    fn write(
        &self,
        input: &Input,
        place: &Place,
        words: Vec<(Vec<u8>, u64, u64)>,
        counted: &mut Counted,
    ) -> Result<()> {
        let mut batch = WriteBatch::new();
        let mut occurrences: HashMap<&[u8], u64> = HashMap::new();
        for (word, line, offset) in &words {
            *occurrences.entry(word).or_default() += 1;
            batch.put(&self.index, index_key(word, input.name(), *line), offset.to_le_bytes());
        }
        let started = Instant::now();
        for (word, more) in &occurrences {
            let before = self.counts.get_with(word, |value| value.try_into().map(u64::from_le_bytes))?.transpose()?;
            batch.put(&self.counts, word, (before.unwrap_or(0) + more).to_le_bytes());
        }
        let read = Instant::now();
        if let Some(fingerprint) = input.fingerprint() {
            let progress = format!("{} {} {} {fingerprint}", place.offset, place.line, u8::from(place.finished));
            batch.put(&self.files, input.name(), progress);
        }
        counted.puts += batch.len() as u64;
        self.db.write(batch)?;
        counted.writing += read.elapsed();
        counted.reading += read - started;
        counted.gets += occurrences.len() as u64;
        counted.words += words.len() as u64;
        counted.batches += 1;
        Ok(())
    }
}

/// Zeros keep the parts apart; no word holds one, and no path.
fn index_key(word: &[u8], file: &str, line: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(word.len() + file.len() + 10);
    key.extend_from_slice(word);
    key.push(0);
    key.extend_from_slice(file.as_bytes());
    key.push(0);
    key.extend_from_slice(&line.to_be_bytes());
    key
}

fn skip(text: &mut dyn BufRead, bytes: u64) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        let some = text.fill_buf()?.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if some == 0 {
            break;
        }
        text.consume(some);
        left -= some as u64;
    }
    Ok(())
}

/// Reads a line and collects its words with its number and their offsets; whether there was one.
fn read_line(text: &mut dyn BufRead, place: &mut Place, words: &mut Vec<(Vec<u8>, u64, u64)>) -> Result<bool> {
    let mut line = Vec::new();
    if text.read_until(b'\n', &mut line)? == 0 {
        return Ok(false);
    }
    place.line += 1;
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
    let mut at = 0;
    while at < line.len() {
        let len = line[at..].iter().take_while(|byte| is_letter(byte)).count();
        if len > 0 {
            let word = line[at..at + len.min(MAX_WORD_BYTES)].to_ascii_lowercase();
            words.push((word, place.line, place.offset + at as u64));
        }
        at += len.max(1);
    }
    place.offset += line.len() as u64;
    Ok(true)
}

/// Gets every word's count again, one by one, in an order that has nothing to do with that of the keys; how many, and
/// how long it took.
pub fn read_back(db: &Db) -> Result<(u64, Duration)> {
    let counts = db.keyspace("counts", Default::default())?;
    let words: Vec<_> = counts.iter().map(|entry| entry.map(|(word, _)| word)).collect::<siltstone::Result<_>>()?;
    let started = Instant::now();
    // A stride that shares no factor with the number of words visits each of them once.
    let stride = (words.len() / 2 + 1..).find(|stride| gcd(*stride, words.len()) == 1).unwrap_or(1);
    let mut at = 0;
    for _ in 0..words.len() {
        at = (at + stride) % words.len();
        counts.get(&words[at])?.ok_or("a word that was counted has no count")?;
    }
    Ok((words.len() as u64, started.elapsed()))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
