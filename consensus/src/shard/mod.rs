//! The multi-group loop as a plain value: events and the time go in, effects come out.

mod api;

pub use api::{
    ApplyTask, Committed, Effects, Event, Install, LeaderChange, MakeSnapshot, Member, NewGroup,
    Outgoing, Persist, Plane, Refusal, Reply,
};
