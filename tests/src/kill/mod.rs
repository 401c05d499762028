//! Processes that are killed with SIGKILL, at random moments and at named points, and what they leave.
//!
//! A [`driver`] writes from several threads, by a [`plan`] that is made from a seed, and notes in an [`oracle`] file
//! what it is about to do and what was acknowledged. After its death everything acknowledged must be there, whole and in
//! order, and what was shipped must be a first part of it. Every run of a [`Life`] has other options than the one
//! before, and recovers from what that one left.
//!
//! A run is repeated by its message: the seed decides everything but the scheduling of threads and the time of a kill.

mod check;
pub mod driver;
mod enumerate;
mod follow;
mod life;
pub mod oracle;
pub mod plan;
pub mod point;
mod rounds;

pub use enumerate::{
    every_point_of_creation, every_point_of_recovery, every_point_of_running, every_point_of_some_recovery,
};
pub use life::{Life, When};
pub use rounds::{kills, round};
