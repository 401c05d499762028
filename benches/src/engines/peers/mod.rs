//! The engines of others: built only with the feature `peers`, because some are C and C++.

mod fjall;
mod lmdb;
mod quiet;
mod redb;
mod rocksdb;
mod surrealkv;

pub use fjall::Fjall;
pub use lmdb::Lmdb;
pub use redb::Redb;
pub use rocksdb::RocksDb;
pub use surrealkv::SurrealKv;
