//! Two databases, entry by entry.

use siltstone::{Db, Slice};

use crate::Result;

/// What the first difference is, if there is one: in the names of keyspaces, in keys, or in values.
pub fn first_difference(before: &Db, restored: &Db) -> Result<Option<String>> {
    let (names, restored_names) = (before.keyspaces(), restored.keyspaces());
    if names != restored_names {
        return Ok(Some(format!("keyspaces {names:?} before, {restored_names:?} restored")));
    }
    let mut entries = 0u64;
    for name in &names {
        let mut left = before.keyspace(name, Default::default())?.iter();
        let mut right = restored.keyspace(name, Default::default())?.iter();
        loop {
            let (left, right) = (left.next().transpose()?, right.next().transpose()?);
            if left != right {
                return Ok(Some(format!("keyspace {name}: {} before, {} restored", show(&left), show(&right))));
            }
            if left.is_none() {
                break;
            }
            entries += 1;
        }
    }
    println!("compared {entries} entries of {} keyspaces", names.len());
    Ok(None)
}

fn show(entry: &Option<(Slice, Slice)>) -> String {
    entry.as_ref().map_or_else(|| "nothing".to_owned(), |(key, value)| format!("{key:?} = {value:?}"))
}
