//! `quorate kv`: single keys, ranges, and files of them.
//!
//! Keys and values are written in one syntax everywhere: UTF-8, with `\xNN` for
//! every byte that is not printable.

mod batches;
mod from;
pub(crate) mod import;
pub(crate) mod lines;
mod progress;
mod scan;
mod verify;

use std::time::Instant;

use bytes::Bytes;
use quorate_client::Client;
use quorate_proto::key;
use serde_json::json;

use crate::cluster::find::Connection;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Format};

/// Reads and writes keys.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Kv {
    /// Write a value
    Put {
        /// UTF-8, with \xNN for other bytes
        key: String,
        /// UTF-8, with \xNN for other bytes
        value: String,
        #[command(flatten)]
        options: Options,
    },
    /// Read a value; exit code 1 where there is none
    Get {
        /// UTF-8, with \xNN for other bytes
        key: String,
        /// Write the value's bytes as they are, without escapes and without a line end
        #[arg(long)]
        raw: bool,
        #[command(flatten)]
        from: from::From,
        #[command(flatten)]
        options: Options,
    },
    /// Delete a key; deleting one that is not there is no error
    Delete {
        /// UTF-8, with \xNN for other bytes
        key: String,
        #[command(flatten)]
        options: Options,
    },
    /// List pairs in the order of their keys
    Scan(scan::ScanArgs),
    /// Load KEY TAB VALUE lines from a file, or from stdin with -
    Import(import::ImportArgs),
}

/// What all `kv` commands on single keys take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Say on stderr which region and leader served it, and how long that took
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// Bad input, an operation that failed, or a key that is not there.
pub(crate) async fn run(command: Kv) -> Outcome {
    match command {
        Kv::Put { key, value, options } => put(&key, &value, &options).await,
        Kv::Get { key, raw, from, options } => get(&key, raw, from, &options).await,
        Kv::Delete { key, options } => delete(&key, &options).await,
        Kv::Scan(args) => scan::scan(args).await,
        Kv::Import(args) => import::import(args).await,
    }
}

/// Reads what a person wrote.
pub(crate) fn written(text: &str, what: &str) -> Outcome<Bytes> {
    key::parse(text)
        .map(Bytes::from)
        .map_err(|error| Failure::error(format!("the {what} `{text}` cannot be read: {error}")))
}

async fn put(key: &str, value: &str, options: &Options) -> Outcome {
    let (key, value) = (written(key, "key")?, written(value, "value")?);
    let client = options.connection.client().await?;
    let timed = Timed::begin(&client, &key, options.verbose).await?;
    client.put(key, value).await?;
    timed.report();
    Ok(())
}

async fn delete(key: &str, options: &Options) -> Outcome {
    let key = written(key, "key")?;
    let client = options.connection.client().await?;
    let timed = Timed::begin(&client, &key, options.verbose).await?;
    client.delete(key).await?;
    timed.report();
    Ok(())
}

async fn get(text: &str, raw: bool, from: from::From, options: &Options) -> Outcome {
    use std::io::Write as _;
    let key = written(text, "key")?;
    let client = options.connection.client().await?;
    let timed = Timed::begin(&client, &key, options.verbose).await?;
    let value = client.get_with(key.clone(), from.options()).await?;
    timed.report();
    let Some(value) = value else {
        return Err(Failure { code: Code::Error, words: format!("no value under {text}") });
    };
    if raw {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(&value).and_then(|()| stdout.flush());
        return written.map_err(output::write_failure);
    }
    output::emit(&match options.shape.format() {
        Format::Table | Format::Plain => format!("{}\n", key::display(&value)),
        Format::Json => {
            format!("{}\n", json!({"key": key::display(&key), "value": key::display(&value)}))
        }
    })
}

/// Who serves a key, and since when an operation on it runs.
struct Timed {
    begun: Instant,
    route: Option<String>,
}

impl Timed {
    async fn begin(client: &Client, key: &Bytes, verbose: bool) -> Outcome<Self> {
        let route = if verbose {
            let route = client.locate(key.clone()).await?;
            let (region, leader) = (route.region.id, route.leader.store);
            Some(format!("region {region}, leader {leader} at {}", route.address))
        } else {
            None
        };
        Ok(Self { begun: Instant::now(), route })
    }
    fn report(&self) {
        if let Some(route) = &self.route {
            output::note(&format!("{route}, {} µs", self.begun.elapsed().as_micros()));
        }
    }
}
