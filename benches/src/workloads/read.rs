//! Gets.

use std::ops::Range;

use super::Worker;
use crate::data::Expected;
use crate::engines::Engine;
use crate::error::{Error, Result};

/// Tells the draws of gets, missing gets and seeks apart.
const HIT_STREAM: u64 = 1;
const MISS_STREAM: u64 = 2;

/// Gets keys drawn at random and checks each value; of a deleted key, that it is gone.
pub(super) fn get_random<E: Engine>(worker: &mut Worker<'_, E>, expected: Expected, steps: Range<u64>) -> Result<u64> {
    let gets = steps.end - steps.start;
    for step in steps {
        let id = worker.data.random(HIT_STREAM, step);
        worker.data.key(id, &mut worker.key);
        let check = |value: &[u8]| worker.data.check(id, expected.version, value);
        let answer = worker.recorder.time(|| worker.engine.get(&worker.key, check))?;
        match (answer, expected.is_live(worker.data, id)) {
            (Some(checked), true) => checked?,
            (None, false) => {}
            (None, true) => return Err(Error::WrongAnswer(format!("get: key {id} is missing"))),
            (Some(_), false) => return Err(Error::WrongAnswer(format!("get: key {id} was deleted and is there"))),
        }
        worker.advance(step);
    }
    Ok(gets)
}

/// Gets keys that were never written.
pub(super) fn get_missing<E: Engine>(worker: &mut Worker<'_, E>, steps: Range<u64>) -> Result<u64> {
    let gets = steps.end - steps.start;
    for step in steps {
        let id = worker.data.random(MISS_STREAM, step);
        worker.data.missing_key(id, &mut worker.key);
        let answer = worker.recorder.time(|| worker.engine.get(&worker.key, <[u8]>::len))?;
        if answer.is_some() {
            return Err(Error::WrongAnswer(format!("get: {:02x?} was never written and is there", worker.key)));
        }
        worker.advance(step);
    }
    Ok(gets)
}
