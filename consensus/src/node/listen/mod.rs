//! The listening sockets of a process: addresses checked before anything is opened, descriptors
//! enough for all that is promised, connections bounded.
//!
//! Both roles listen the same way, on two sockets each: one for clients and for the other
//! processes of the cluster, one for the status pages.

mod address;
mod descriptors;
mod incoming;

pub use address::{ListenError, advertised, bind, dialable};
pub use descriptors::reserve_descriptors;
pub use incoming::{Bounds, Caller, Connection, Incoming};
