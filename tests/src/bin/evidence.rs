//! Writes the table of what the reliability tests did into a document: `evidence FIGURES DOCUMENT`, where FIGURES is the
//! file that `SILTSTONE_EVIDENCE` named while they ran.

use std::error::Error;
use std::fs;

use siltstone_tests::evidence::{insert, sum, table};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [figures, document] = &arguments[..] else { return Err("usage: evidence FIGURES DOCUMENT".into()) };
    let sums = sum(&fs::read_to_string(figures)?)?;
    let written = insert(&fs::read_to_string(document)?, &table(&sums))?;
    fs::write(document, written)?;
    Ok(())
}
