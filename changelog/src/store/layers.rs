//! The layers around a store, in the order in which they make sense.

use std::sync::Arc;

use super::{Access, AccessLog, CacheOptions, Cached, KeyValueStore, LargeMessageGuard, Metered, Oversize};
use crate::error::Result;

/// Who is told of calls, and of which share of them.
type Logged = (f64, Box<dyn Fn(&Access<'_>) + Send + Sync>);

/// Puts layers around a store, each of them optional, always in the same order. From the outside: access log, cache,
/// guard, and the store, of which [`Metered`] may be put around any.
///
/// ```
/// use siltstone_changelog::store::{CacheOptions, KeyValueStore, Oversize, StoreLayers};
/// # let dir = tempfile::tempdir().unwrap();
/// let db = siltstone::Db::open(dir.path())?;
/// let words = db.keyspace("words", Default::default())?;
/// let layers = StoreLayers::new().cache(CacheOptions::new()).large_messages(1_000_000, Oversize::Refuse);
/// let store = layers.around(words)?;
/// store.put(b"silt", b"1")?;
/// store.flush()?;
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Default)]
#[must_use = "layers do nothing until they are put around a store"]
pub struct StoreLayers {
    access_log: Option<Logged>,
    cache: Option<CacheOptions>,
    large_messages: Option<(usize, Oversize)>,
}

impl StoreLayers {
    /// None.
    pub fn new() -> Self {
        StoreLayers::default()
    }

    /// A [`LargeMessageGuard`].
    pub fn large_messages(mut self, max_message_bytes: usize, oversize: Oversize) -> Self {
        self.large_messages = Some((max_message_bytes, oversize));
        self
    }

    /// A [`Cached`] store.
    pub fn cache(mut self, options: CacheOptions) -> Self {
        self.cache = Some(options);
        self
    }

    /// An [`AccessLog`].
    pub fn access_log(mut self, ratio: f64, report: impl Fn(&Access<'_>) + Send + Sync + 'static) -> Self {
        self.access_log = Some((ratio, Box::new(report)));
        self
    }

    /// Puts them around `store`, with figures on the outside.
    ///
    /// # Errors
    /// `InvalidArgument` if a layer's options are out of bounds.
    pub fn around(self, store: impl KeyValueStore + 'static) -> Result<Metered<Arc<dyn KeyValueStore>>> {
        let mut store: Arc<dyn KeyValueStore> = Arc::new(store);
        if let Some((max_message_bytes, oversize)) = self.large_messages {
            store = Arc::new(LargeMessageGuard::new(store, max_message_bytes, oversize));
        }
        if let Some(options) = self.cache {
            store = Arc::new(Cached::new(store, options)?);
        }
        if let Some((ratio, report)) = self.access_log {
            store = Arc::new(AccessLog::new(store, ratio, report)?);
        }
        Ok(Metered::new(store))
    }
}
