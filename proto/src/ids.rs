//! A newtype for every number, shown the way an operator reads it: `r7 s2 p19`.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The bare number.
            pub const fn get(self) -> u64 {
                self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                Self(number)
            }
        }
    };
}

id!(
    /// A region: a key range and the Raft group that replicates it. `r0` is placement's own group.
    RegionId,
    "r"
);
id!(
    /// A replica of a region on one store. Never reused.
    PeerId,
    "p"
);
id!(
    /// A store process.
    StoreId,
    "s"
);
id!(
    /// A process that hosts peers of Raft groups: a store, or a placement member.
    NodeId,
    "n"
);
id!(
    /// A Raft term.
    Term,
    "t"
);
id!(
    /// A position in a Raft log.
    LogIndex,
    "i"
);

impl LogIndex {
    /// The position after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
impl From<StoreId> for NodeId {
    fn from(store: StoreId) -> Self {
        Self(store.0)
    }
}
impl From<NodeId> for StoreId {
    fn from(node: NodeId) -> Self {
        Self(node.0)
    }
}
