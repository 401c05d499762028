//! Applying a log to a database.

use std::collections::{HashMap, HashSet};

use siltstone::{Change, ChangeBatch, Db, KeyspaceName, KeyspaceOptions, SeqNo};

use crate::error::{Error, Result};
use crate::position::Position;
use crate::restore::SOURCE_POSITION;

/// Applies batches with the numbers they had, each together with the position after it.
#[derive(Debug, Default)]
pub(crate) struct Applier {
    /// The options that keyspaces are created with: they are not in the log.
    keyspaces: HashMap<KeyspaceName, KeyspaceOptions>,
    opened: HashSet<KeyspaceName>,
    /// See [`Source::holds_whole_state`](crate::Source::holds_whole_state).
    pub(crate) log_is_whole: Option<bool>,
    /// Whether a log that is not is applied as far as it goes.
    pub(crate) allow_partial: bool,
}

impl Applier {
    pub(crate) fn set_options(&mut self, name: KeyspaceName, options: KeyspaceOptions) {
        self.keyspaces.insert(name, options);
    }

    /// # Errors
    /// `Partial` before the first batch of a log that is not whole; what the database says.
    pub(crate) fn apply(&mut self, db: &Db, batch: &ChangeBatch, position: &Position) -> Result<()> {
        self.check_whole(db, batch.first_seqno())?;
        self.open_keyspaces(db, batch)?;
        db.apply(batch, &[(SOURCE_POSITION, position.as_bytes())])?;
        Ok(())
    }

    /// # Errors
    /// `Partial` if `first_seqno` is to be the first number of an empty database, and the log is not whole.
    pub(crate) fn check_whole(&self, db: &Db, first_seqno: SeqNo) -> Result<()> {
        let is_whole = self.allow_partial || self.log_is_whole.unwrap_or(first_seqno == 1);
        if db.last_seqno() == 0 && !is_whole {
            let hint = "allow a partial restore, to get what there is";
            return Err(Error::Partial { first: first_seqno, hint });
        }
        Ok(())
    }

    /// Creates the keyspaces that have options of their own before the batch would create them with the default ones.
    pub(crate) fn open_keyspaces(&mut self, db: &Db, batch: &ChangeBatch) -> Result<()> {
        if self.keyspaces.is_empty() || batch.last_seqno() <= db.last_seqno() {
            return Ok(());
        }
        for change in batch.changes() {
            let name = change.keyspace();
            if matches!(change, Change::DropKeyspace { .. }) {
                self.opened.remove(name);
            } else {
                self.open_keyspace(db, name)?;
            }
        }
        Ok(())
    }

    /// As [`open_keyspaces`](Self::open_keyspaces), one of them.
    pub(crate) fn open_keyspace(&mut self, db: &Db, name: &KeyspaceName) -> Result<()> {
        if let Some(options) = self.keyspaces.get(name)
            && !self.opened.contains(name)
        {
            db.keyspace(name, options.clone())?;
            self.opened.insert(name.clone());
        }
        Ok(())
    }
}
