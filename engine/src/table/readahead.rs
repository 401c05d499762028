//! [`ReadAhead`]: what a cursor that passes through a table will need soon.
//!
//! Mapped tables are read at random places as far as the system knows, so that a get brings in the one block it is about
//! and not its megabytes of neighbours. A pass has to say itself where it is going; how far ahead grows as it goes on, so
//! that a seek that reads a few entries asks for little it does not read.

use std::ops::Range;

/// How many blocks a cursor has to enter one after the other to be on a pass.
const BLOCKS: u32 = 2;

/// What is asked for first and at most, in bytes.
const PIECE_BYTES: (u64, u64) = (32 << 10, 512 << 10);

/// What is asked for by a pass that will go to the end, in bytes.
const WHOLE_PASS_PIECE_BYTES: u64 = 2 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct ReadAhead {
    /// Blocks entered since the last seek.
    entered: u32,
    /// The length of the next piece.
    piece_bytes: u64,
    /// The part of the file that was asked for and that the cursor is in or next to.
    asked: Range<u64>,
    is_whole_pass: bool,
}

impl ReadAhead {
    /// Of a cursor that may be on a pass or not.
    pub(super) fn new() -> Self {
        ReadAhead { entered: 0, piece_bytes: PIECE_BYTES.0, asked: 0..0, is_whole_pass: false }
    }

    /// Of a cursor that will go through the table.
    pub(super) fn whole_pass() -> Self {
        ReadAhead { entered: BLOCKS, piece_bytes: WHOLE_PASS_PIECE_BYTES, asked: 0..0, is_whole_pass: true }
    }

    /// The cursor goes somewhere else.
    #[inline]
    pub(super) fn restart(&mut self) {
        if self.entered > 0 && !self.is_whole_pass {
            *self = ReadAhead::new();
        }
    }

    /// The cursor enters the block next to its last, which lies at `block`. What to ask for now, as a part of the file
    /// that may go beyond its end.
    #[inline]
    pub(super) fn enter(&mut self, block: &Range<u64>, backward: bool) -> Option<Range<u64>> {
        if self.entered < BLOCKS {
            self.entered += 1;
            return None;
        }
        let touches = block.start <= self.asked.end && self.asked.start <= block.end;
        let ahead_bytes = match (touches, backward) {
            (false, _) => 0,
            (true, false) => self.asked.end.saturating_sub(block.end),
            (true, true) => block.start.saturating_sub(self.asked.start),
        };
        if ahead_bytes > self.piece_bytes / 2 {
            return None;
        }
        let piece = if backward {
            let end = block.start - ahead_bytes;
            end.saturating_sub(self.piece_bytes)..end
        } else {
            let start = block.end.saturating_add(ahead_bytes);
            start..start.saturating_add(self.piece_bytes)
        };
        self.asked = piece.start.min(block.start)..piece.end.max(block.end);
        self.piece_bytes = (2 * self.piece_bytes).min(PIECE_BYTES.1).max(self.piece_bytes);
        Some(piece).filter(|piece| !piece.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_BYTES: u64 = 4 << 10;
    const FILE_BYTES: u64 = 16 << 20;

    /// Enters the blocks of a file one after the other; checks that each was asked for before, once, and answers with
    /// the pieces.
    fn pass(ahead: &mut ReadAhead, backward: bool) -> Vec<Range<u64>> {
        let mut asked = vec![0; (FILE_BYTES / BLOCK_BYTES) as usize];
        let mut pieces = Vec::new();
        for step in 0..asked.len() as u64 {
            let at = BLOCK_BYTES * if backward { asked.len() as u64 - 1 - step } else { step };
            let times = asked[(at / BLOCK_BYTES) as usize];
            assert_eq!(times, u32::from(!pieces.is_empty()), "block {step}");
            if let Some(piece) = ahead.enter(&(at..at + BLOCK_BYTES), backward) {
                for block in piece.start / BLOCK_BYTES..piece.end.min(FILE_BYTES) / BLOCK_BYTES {
                    asked[block as usize] += 1;
                }
                pieces.push(piece);
            }
        }
        pieces
    }

    #[test]
    fn a_pass_asks_for_all_that_is_ahead_once_in_growing_pieces() {
        for backward in [false, true] {
            let mut ahead = ReadAhead::new();
            let pieces = pass(&mut ahead, backward);
            let bytes: Vec<_> = pieces.iter().map(|piece| piece.end - piece.start).collect();
            assert_eq!(bytes[..6], [32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 512 << 10]);
            assert!(bytes.len() < 40);
            ahead.restart();
            assert_eq!(ahead.enter(&(0..BLOCK_BYTES), backward), None, "no pass yet");
        }
        let pieces = pass(&mut ReadAhead::whole_pass(), false);
        assert!(pieces.iter().all(|piece| piece.end - piece.start == WHOLE_PASS_PIECE_BYTES));
    }

    #[test]
    fn a_cursor_that_turns_asks_for_what_is_on_the_other_side() {
        let mut ahead = ReadAhead::new();
        let at = |block: u64| 8 * FILE_BYTES + block * BLOCK_BYTES..8 * FILE_BYTES + (block + 1) * BLOCK_BYTES;
        assert!(ahead.enter(&at(0), false).is_none() && ahead.enter(&at(1), false).is_none());
        let forward = ahead.enter(&at(2), false).unwrap();
        assert_eq!(forward.start, at(2).end);
        let backward = ahead.enter(&at(1), true).unwrap();
        assert_eq!(backward.end, at(1).start);
        assert_eq!(ahead.enter(&at(0), true).unwrap().end, backward.start, "the next piece, while this one is passed");
    }
}
