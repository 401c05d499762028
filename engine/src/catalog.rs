//! Creating and dropping keyspaces.

use std::sync::Arc;

use crate::db::DbHandle;
use crate::error::Result;
use crate::key::SeqNo;
use crate::name::KeyspaceName;
use crate::options::KeyspaceOptions;
use crate::tree::Tree;
use crate::version::edit::{Edit, KeyspaceCreated};
use crate::version::version::Version;

impl DbHandle {
    /// The live tree of that name, created if there is none.
    pub(crate) fn open_tree(&self, name: &str, options: KeyspaceOptions) -> Result<Arc<Tree>> {
        self.store.health.check_read()?;
        KeyspaceName::check(name)?;
        options.check()?;
        let _one_at_a_time = self.catalog.lock();
        let existing = self.store.trees.read().by_name.get(name).cloned();
        match existing {
            Some(tree) => self.reopen_tree(tree, options),
            None => self.create_tree(name, options),
        }
    }

    fn reopen_tree(&self, tree: Arc<Tree>, options: KeyspaceOptions) -> Result<Arc<Tree>> {
        // Where nothing can be written, reads go on with the options the keyspace has.
        if *tree.options() == options || self.store.health.has_failed() {
            return Ok(tree);
        }
        let edit = Edit { options_changed: vec![(tree.id, options.clone())], ..Edit::default() };
        self.install(edit)?;
        tree.set_options(options);
        Ok(tree)
    }

    /// The manifest's edit is synced before the first write can name the keyspace.
    fn create_tree(&self, name: &str, options: KeyspaceOptions) -> Result<Arc<Tree>> {
        let writer = self.writer()?;
        self.store.health.check_write()?;
        let id = self.store.versions.with_state(|state| state.next_keyspace_id);
        let created = KeyspaceCreated { id, name: name.to_owned(), options: options.clone() };
        self.install(Edit { created: vec![created], ..Edit::default() })?;
        let name = KeyspaceName::from(name);
        let active = self.store.new_memtable(&options);
        let tree = Arc::new(Tree::new(id, name.clone(), options, active, Version::empty()));
        let mut trees = self.store.trees.write();
        trees.names.insert(id, name.clone());
        trees.by_name.insert(name, tree.clone());
        drop(trees);
        writer.with_state(|state| state.add(tree.clone()));
        Ok(tree)
    }

    fn install(&self, edit: Edit) -> Result<()> {
        let installed = self.store.versions.install(|_| Some(edit), || ());
        installed.inspect_err(|error| self.store.health.fail("writing the manifest", error)).map(|_| ())
    }

    /// Drops the tree of that name; whether there was one. First the log (synced: what came before the drop must not be
    /// lost while the drop stays), then the manifest, then the files. `at`: the number of the drop, when it is replayed
    /// from another database's log.
    pub(crate) fn drop_tree(&self, name: &str, at: Option<SeqNo>) -> Result<bool> {
        let writer = self.writer()?;
        self.store.health.check_write()?;
        let _one_at_a_time = self.catalog.lock();
        let Some(tree) = self.store.trees.read().by_name.get(name).cloned() else { return Ok(false) };
        let seqno = writer.drop_keyspace(tree.id, at)?;
        self.install(Edit { dropped: vec![(tree.id, seqno)], ..Edit::default() })?;
        // No write and no flush of it can come after the edit. Writers must not wait for memory that only a snapshot can
        // give back.
        self.store.shrink_memtables(tree.view().memtables().map(|memtable| memtable.bytes()).sum());
        let mut trees = self.store.trees.write();
        trees.by_name.remove(name);
        trees.dropped.push((seqno, tree));
        drop(trees);
        self.store.release_dropped();
        self.store.signal.notify();
        Ok(true)
    }

    /// The live tree of that name with the options it has, or a new one with default options.
    pub(crate) fn tree_or_default(&self, name: &str) -> Result<Arc<Tree>> {
        let tree = self.store.trees.read().by_name.get(name).cloned();
        tree.map_or_else(|| self.open_tree(name, KeyspaceOptions::default()), Ok)
    }
}
