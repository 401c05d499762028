//! Which server, which stream, and how.

use std::time::Duration;

use async_nats::jetstream::stream;
use async_nats::{ConnectOptions, ServerAddr};
use siltstone::KeyspaceName;

use crate::error::{Error, Result};

/// The longest name of a stream that is taken, in bytes.
const MAX_STREAM_BYTES: usize = 100;

/// Where a [`NatsSink`](crate::NatsSink) writes and a [`NatsSource`](crate::NatsSource) reads.
///
/// ```
/// use std::time::Duration;
/// use siltstone_changelog::NatsOptions;
/// let options = NatsOptions::new("localhost:4222", "orders-state")?.replicas(3).max_age(Duration::from_secs(7 * 24 * 3600));
/// # let _ = options;
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NatsOptions {
    server: String,
    pub(super) stream: String,
    replicas: usize,
    max_age: Duration,
    max_bytes: i64,
    pub(super) request_timeout: Duration,
    credentials: Option<String>,
    require_tls: bool,
}

impl NatsOptions {
    /// The servers at `server` (`host:port` or an URL, separated by commas), and the stream; one database has one stream.
    /// Its subjects are `stream.keyspace`.
    ///
    /// # Errors
    /// `InvalidArgument` unless the stream has 1 to 100 letters, digits, hyphens and underscores.
    pub fn new(server: impl Into<String>, stream: impl Into<String>) -> Result<Self> {
        let stream = stream.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=MAX_STREAM_BYTES).contains(&stream.len()) || !stream.bytes().all(allowed) {
            return Err(Error::InvalidArgument(format!(
                "a stream's name has 1 to {MAX_STREAM_BYTES} letters, digits, hyphens and underscores, unlike {stream:?}"
            )));
        }
        Ok(NatsOptions {
            server: server.into(),
            stream,
            replicas: 1,
            max_age: Duration::ZERO,
            max_bytes: -1,
            request_timeout: Duration::from_secs(10),
            credentials: None,
            require_tls: false,
        })
    }

    /// How many servers hold the stream that is created. Default 1.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// How long messages are kept in the stream that is created. Default: for ever.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// How large the stream that is created may get, in bytes, before its oldest messages go. Default: no limit.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self
    }

    /// How long a request may take before it is an error that may be tried again. Default 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// What is in a credentials file, to prove who this is.
    pub fn credentials(mut self, credentials: impl Into<String>) -> Self {
        self.credentials = Some(credentials.into());
        self
    }

    /// Whether a connection without TLS is refused. Default no.
    pub fn require_tls(mut self, require: bool) -> Self {
        self.require_tls = require;
        self
    }

    pub(super) fn connect_options(&self) -> Result<ConnectOptions> {
        let mut options = ConnectOptions::new()
            .require_tls(self.require_tls)
            .request_timeout(Some(self.request_timeout))
            .connection_timeout(self.request_timeout);
        if let Some(credentials) = &self.credentials {
            options = options
                .credentials(credentials)
                .map_err(|error| Error::InvalidArgument(format!("these are no credentials: {error}")))?;
        }
        Ok(options)
    }

    pub(super) fn servers(&self) -> Result<Vec<ServerAddr>> {
        let parse = |server: &str| {
            server.trim().parse().map_err(|error| Error::InvalidArgument(format!("{server:?} is no server: {error}")))
        };
        self.server.split(',').map(parse).collect()
    }

    pub(super) fn stream_config(&self) -> stream::Config {
        stream::Config {
            name: self.stream.clone(),
            subjects: vec![format!("{}.>", self.stream)],
            num_replicas: self.replicas,
            max_age: self.max_age,
            max_bytes: self.max_bytes,
            storage: stream::StorageType::File,
            ..stream::Config::default()
        }
    }

    /// The subject of a keyspace: bytes other than letters, digits and hyphens are an underscore and two hexadecimal
    /// digits.
    pub fn keyspace_subject(&self, keyspace: &KeyspaceName) -> String {
        format!("{}.{}", self.stream, crate::names::escaped(keyspace))
    }

    /// The subject of batches over several keyspaces. No keyspace's is called so.
    pub(super) fn several_subject(&self) -> String {
        format!("{}._several", self.stream)
    }

    pub(super) fn claim_subject(&self) -> String {
        format!("{}._claim", self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_streams_are_checked_and_subjects_differ() {
        for bad in ["", "a.b", "a b", "größe", &"x".repeat(101)] {
            assert!(matches!(NatsOptions::new("here", bad), Err(Error::InvalidArgument(_))), "{bad}");
        }
        let options = NatsOptions::new("here", "app").unwrap();
        assert_eq!(options.keyspace_subject(&"a.b".into()), "app.a_2eb");
        assert_ne!(options.keyspace_subject(&"_several".into()), options.several_subject());
    }
}
