//! [`ship`]: following a database's log into a sink.

mod options;
mod shared;
mod shipper;
mod start;
mod worker;

pub use options::ShipOptions;
pub use shared::{State, Status};
pub use shipper::{Shipper, ship};
#[cfg(feature = "snapshot")]
pub(crate) use start::position_entry;
