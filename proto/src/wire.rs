//! Generated code, one module for each protobuf package.
#![allow(missing_docs, unreachable_pub, clippy::all)]

/// TiKV's description of regions, peers and stores.
pub mod metapb {
    tonic::include_proto!("metapb");
}
/// TiKV's region errors.
pub mod errorpb {
    tonic::include_proto!("errorpb");
}
/// TiKV's raw key-value requests.
pub mod kvrpcpb {
    tonic::include_proto!("kvrpcpb");
}
/// TiKV's store service.
pub mod tikvpb {
    tonic::include_proto!("tikvpb");
}
/// PD's service.
pub mod pdpb {
    tonic::include_proto!("pdpb");
}
/// The standard health service.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
/// Our own packages, nested as protobuf nests them, so that the generated `super::super`
/// finds [`metapb`]; use the names exported below.
pub mod quorate {
    /// Between our own processes: Raft messages and snapshots.
    pub mod peer {
        tonic::include_proto!("quorate.peer");
    }
    /// What is in a region's log.
    pub mod command {
        tonic::include_proto!("quorate.command");
    }
    /// Between stores, the command line and placement.
    pub mod placement {
        tonic::include_proto!("quorate.placement");
    }
    /// What placement replicates and stores.
    pub mod placement_state {
        tonic::include_proto!("quorate.placement_state");
    }
}
pub use quorate::{command, peer, placement, placement_state};
