//! temp
use crate::store::Store;
use crate::tree::Tree;
/// temp
#[derive(Debug, Clone)]
pub struct Metrics {}
/// temp
#[derive(Debug, Clone)]
pub struct KeyspaceMetrics {}
impl Metrics { pub(crate) fn of(_: &Store) -> Self { Metrics {} } }
impl KeyspaceMetrics { pub(crate) fn of(_: &Tree, _: &Store) -> Self { KeyspaceMetrics {} } }
