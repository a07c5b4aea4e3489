//! Wire messages of Quorate, and the domain types parsed from them.
//!
//! What clients speak ([`wire::pdpb`], [`wire::tikvpb`], [`wire::kvrpcpb`]…) is
//! wire-compatible with TiKV: names and numbers are theirs, and only what we
//! serve is defined. What our own processes say to each other
//! ([`wire::peer`], [`wire::placement`], [`wire::command`]) is ours.
//!
//! Wire messages are parsed once, at the edge, into the types of [`region`] and
//! [`ids`]; inside, nothing is an `Option` that "cannot be None".

pub mod codec;
pub mod ids;
pub mod key;
pub mod limits;
pub mod region;
pub mod wire;

pub use ids::{LogIndex, NodeId, PeerId, RegionId, StoreId, Term};
pub use region::{Epoch, InvalidRegion, KeyRange, Peer, Region, Role};
