//! The file that says how far each thread of a killed driver got.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use super::plan::THREADS;

/// A line of the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A thread is about to do an event.
    Intent {
        /// Which thread.
        thread: usize,
        /// Which event.
        number: u64,
    },
    /// The database acknowledged it.
    Acknowledged {
        /// Which thread.
        thread: usize,
        /// Which event.
        number: u64,
    },
}

const NOTE_BYTES: usize = 16;

/// The file that survives the driver: each note is one `write` call, never synced, since a killed process takes nothing
/// back that the system has.
#[derive(Debug)]
pub struct Oracle(File);

impl Oracle {
    /// Opens for appending.
    ///
    /// # Errors
    /// The system's.
    pub fn append_to(path: &Path) -> io::Result<Self> {
        Ok(Oracle(OpenOptions::new().create(true).append(true).open(path)?))
    }

    /// Appends a note; many threads may at once, since appends of one call are whole.
    ///
    /// # Errors
    /// The system's.
    pub fn note(&self, note: Note) -> io::Result<()> {
        let (kind, thread, number) = match note {
            Note::Intent { thread, number } => (1, thread, number),
            Note::Acknowledged { thread, number } => (2, thread, number),
        };
        let mut bytes = [0; NOTE_BYTES];
        bytes[0] = kind;
        bytes[1] = thread as u8;
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        let written = (&self.0).write(&bytes)?;
        if written == NOTE_BYTES { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Reads all notes; none if there is no file.
    ///
    /// # Errors
    /// The system's; `InvalidData` for what no driver writes.
    pub fn read(path: &Path) -> io::Result<Vec<Note>> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bytes => bytes?,
        };
        let (notes, rest) = bytes.as_chunks::<NOTE_BYTES>();
        if !rest.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "half a note"));
        }
        notes.iter().map(decode).collect()
    }
}

fn decode(bytes: &[u8; NOTE_BYTES]) -> io::Result<Note> {
    let [kind, thread, _, _, _, _, _, _, number @ ..] = *bytes;
    let (thread, number) = (usize::from(thread), u64::from_le_bytes(number));
    match kind {
        1 => Ok(Note::Intent { thread, number }),
        2 => Ok(Note::Acknowledged { thread, number }),
        kind => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a note of kind {kind}"))),
    }
}

/// How far a thread got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last event it was about to do.
    pub intended: u64,
    /// The last one that was acknowledged: the same, or the one before.
    pub acknowledged: u64,
}

/// How far each thread got, given the last event of each before the notes.
///
/// # Errors
/// Notes that are out of order.
pub fn progress(notes: &[Note], before: [u64; THREADS]) -> Result<[Progress; THREADS], String> {
    let mut progress = before.map(|number| Progress { intended: number, acknowledged: number });
    for note in notes {
        let (Note::Intent { thread, .. } | Note::Acknowledged { thread, .. }) = *note;
        let now = progress.get_mut(thread).ok_or("no such thread")?;
        match *note {
            Note::Intent { number, .. } if now.intended == now.acknowledged && number == now.intended + 1 => {
                now.intended = number;
            }
            Note::Acknowledged { number, .. } if number == now.intended && now.intended == now.acknowledged + 1 => {
                now.acknowledged = number;
            }
            _ => return Err(format!("{note:?} after {now:?}")),
        }
    }
    Ok(progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_in_order() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("oracle");
        assert_eq!(Oracle::read(&path).unwrap(), []);
        let oracle = Oracle::append_to(&path).unwrap();
        let (intent, done) = (Note::Intent { thread: 2, number: 8 }, Note::Acknowledged { thread: 2, number: 8 });
        [intent, done, Note::Intent { thread: 0, number: 1 }].iter().for_each(|&note| oracle.note(note).unwrap());
        let notes = Oracle::read(&path).unwrap();
        let before = [0, 3, 7, 0, 0];
        let found = progress(&notes, before).unwrap();
        assert_eq!(found.map(|progress| progress.intended), [1, 3, 8, 0, 0]);
        assert_eq!(found.map(|progress| progress.acknowledged), [0, 3, 8, 0, 0]);
        for wrong in [vec![done], vec![intent, intent], vec![intent, done, done]] {
            assert!(progress(&wrong, before).is_err(), "{wrong:?}");
        }
    }
}
