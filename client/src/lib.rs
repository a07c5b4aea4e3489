//! The SDK of Quorate: routing, batching, retries.
//!
//! ```no_run
//! # async fn example() -> quorate_client::Result<()> {
//! use quorate_client::{Client, ClientOptions};
//!
//! let placement = ["127.0.0.1:2379".to_owned()];
//! let client = Client::connect(&placement, ClientOptions::default()).await?;
//! client.put("hello", "world").await?;
//! assert_eq!(client.get("hello").await?.as_deref(), Some(&b"world"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! From the outside in:
//! - [`Client`]: the operations on one key, on many (`batch`), on ranges (`scan`);
//! - `execute`, `correct`: one operation on one region until it is answered; what may be tried
//!   again;
//! - `router`: which region holds a key, and whom to ask; a plain value;
//! - `stores`, `lane`: the connections, one batched stream each; `lane::core` is a plain value;
//! - [`placement`]: the client of the placement service, which finds its leader by itself.
//!
//! It speaks TiKV's wire protocol and knows nothing of Raft. Absent on purpose: transactions, a
//! second attempt of a write whose first one may have been applied (see [`Client`]), and TLS.

mod backoff;
mod batch;
mod client;
mod command;
mod correct;
mod error;
mod execute;
mod lane;
mod nearby;
mod options;
pub mod placement;
mod refusal;
pub mod router;
mod scan;
mod stores;

pub use client::{Client, KvPair, RegionRoute};
pub use error::{Error, Result};
pub use options::{ClientOptions, ReadFrom, ReadOptions};
pub use placement::{PlacementClient, PlacementOptions, RegionInfo, Timestamp};
