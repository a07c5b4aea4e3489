//! What is measured: this cluster through the SDK, or etcd through its own protocol.
//!
//! Both get the same shape: `connections` sets of connections, shared by the
//! clients in turn; a set has one HTTP/2 connection to each process and carries
//! any number of requests at once. etcd's clients are spread over the endpoints.

use std::time::Duration;

use bytes::Bytes;
use quorate_client::{Client, ClientOptions};
use tonic::transport::{Channel, Endpoint};

use self::wire::kv_client::KvClient;
use crate::cluster::find::Connection;
use crate::exit::{Failure, Outcome};

/// etcd's messages, from names and numbers.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod wire {
    tonic::include_proto!("etcdserverpb");
}

/// Which system is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum System {
    /// This cluster.
    Quorate,
    /// etcd, version 3, at `--endpoints`.
    Etcd,
}

impl System {
    /// What reports call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quorate => "quorate",
            Self::Etcd => "etcd",
        }
    }
}

/// One client's way to the system.
#[derive(Clone)]
pub(super) enum Target {
    /// Routed by the SDK.
    Quorate(Client),
    /// Any endpoint; etcd forwards to its leader.
    Etcd(KvClient<Channel>),
}

impl Target {
    /// The ways of `clients` clients over that many sets of connections.
    ///
    /// # Errors
    /// Nobody answers.
    pub(super) async fn connect(
        system: System,
        connection: &Connection,
        endpoints: &[String],
        clients: usize,
        connections: usize,
    ) -> Outcome<Vec<Self>> {
        let connections = connections.clamp(1, clients.max(1));
        let mut sets = Vec::new();
        match system {
            System::Quorate => {
                for _ in 0..connections {
                    sets.push(Self::Quorate(
                        connection.client_with(ClientOptions::default()).await?,
                    ));
                }
            }
            System::Etcd => {
                for _ in 0..connections {
                    for endpoint in endpoints {
                        sets.push(Self::Etcd(etcd(endpoint, connection.timeout).await?));
                    }
                }
            }
        }
        Ok((0..clients).map(|number| sets[number % sets.len()].clone()).collect())
    }

    /// Writes a value, durably on a majority.
    pub(super) async fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), String> {
        match self {
            Self::Quorate(client) => {
                client.put(key, value).await.map_err(|error| error.to_string())
            }
            Self::Etcd(client) => {
                let request = wire::PutRequest { key, value };
                client.put(request).await.map(|_| ()).map_err(|status| status.to_string())
            }
        }
    }

    /// Reads a value, linearizably; false where there is none.
    pub(super) async fn get(&mut self, key: Bytes) -> Result<bool, String> {
        match self {
            Self::Quorate(client) => match client.get(key).await {
                Ok(value) => Ok(value.is_some()),
                Err(error) => Err(error.to_string()),
            },
            Self::Etcd(client) => {
                let request = wire::RangeRequest { key, serializable: false };
                match client.range(request).await {
                    Ok(answer) => Ok(!answer.into_inner().kvs.is_empty()),
                    Err(status) => Err(status.to_string()),
                }
            }
        }
    }
}

async fn etcd(endpoint: &str, timeout: u64) -> Outcome<KvClient<Channel>> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::unavailable(format!("etcd at {endpoint}: {error}; check --endpoints HOST:PORT,…"))
    };
    let channel = Endpoint::from_shared(format!("http://{endpoint}"))
        .map_err(|error| wrong(&error))?
        .tcp_nodelay(true)
        .timeout(Duration::from_secs(timeout))
        .connect()
        .await
        .map_err(|error| wrong(&error))?;
    Ok(KvClient::new(channel))
}
