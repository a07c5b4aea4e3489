//! The first step of every request: checked, and answered, or made ready for the log.
//!
//! In the network thread, so everything here is quick: a scan for many pairs is only prepared, and
//! a read that meets too much that is deleted, or would have to wait for the disk, is given up, to be
//! made elsewhere.

use bytes::Bytes;
use quorate_consensus::time::Instant;
use quorate_proto::RegionId;
use quorate_proto::wire::kvrpcpb::Context;
use quorate_proto::wire::tikvpb::BatchCommandsEmptyResponse;
use quorate_proto::wire::tikvpb::batch_commands_request::request::Cmd as Asked;
use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Response;

use super::Serving;
use super::read::{Attempt, Finished, Read, What};
use crate::core::command::{self, CommandError, Stamp};
use crate::core::{Admitted, Effort, RegionError, Scan};
use crate::kind::Kind;

/// What the first step came to.
pub(crate) enum Begun {
    /// It is over. Without a kind: a message that only keeps the stream alive.
    Finished(Option<Kind>, Finished),
    /// It asks for nothing that we know.
    Nothing,
    /// To be replicated.
    Write {
        /// Its kind.
        kind: Kind,
        /// The region whose log it goes to.
        region: RegionId,
        /// What goes there.
        command: Bytes,
    },
    /// To be read once a read index is confirmed.
    Index(Box<Read>),
    /// To be read outside of the network thread.
    Elsewhere(Box<Read>),
}

/// Why a request is not even begun.
enum Problem {
    Region(RegionError),
    Invalid(String),
}

impl From<RegionError> for Problem {
    fn from(error: RegionError) -> Self {
        Problem::Region(error)
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        Problem::Invalid(error.to_string())
    }
}

impl Serving {
    /// Takes the first step of a request that came in at `now`.
    pub(crate) fn begin(&self, asked: Option<Asked>, now: Instant) -> Begun {
        let Some(asked) = asked else { return Begun::Nothing };
        match asked {
            Asked::RawGet(ask) => {
                self.read(Kind::Get, ask.context, &ask.cf, What::Get(ask.key), now)
            }
            Asked::RawBatchGet(ask) => {
                self.read(Kind::BatchGet, ask.context, &ask.cf, What::BatchGet(ask.keys), now)
            }
            Asked::RawScan(ask) => {
                let what = What::Scan(Scan::from(&ask));
                self.read(Kind::Scan, ask.context, &ask.cf, what, now)
            }
            Asked::RawBatchScan(ask) => {
                let what = What::BatchScan(Scan::batch(&ask));
                self.read(Kind::BatchScan, ask.context, &ask.cf, what, now)
            }
            Asked::RawPut(ask) => {
                let common = admissible(ask.context, &ask.cf, &[ask.ttl]);
                self.write(Kind::Put, common, now, |region, stamp| {
                    let command = command::put(stamp, &ask.key, &ask.value)?;
                    region.check_key(&ask.key)?;
                    Ok(command)
                })
            }
            Asked::RawBatchPut(ask) => {
                let mut ttls = ask.ttls;
                ttls.push(ask.ttl);
                let common = admissible(ask.context, &ask.cf, &ttls);
                self.write(Kind::BatchPut, common, now, |region, stamp| {
                    let pairs: Vec<(Bytes, Bytes)> =
                        ask.pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
                    let command = command::put_all(stamp, &pairs)?;
                    region.check_keys(pairs.iter().map(|(key, _)| key.as_ref()))?;
                    Ok(command)
                })
            }
            Asked::RawDelete(ask) => {
                let common = admissible(ask.context, &ask.cf, &[]);
                self.write(Kind::Delete, common, now, |region, stamp| {
                    let command = command::delete(stamp, &ask.key)?;
                    region.check_key(&ask.key)?;
                    Ok(command)
                })
            }
            Asked::RawBatchDelete(ask) => {
                let common = admissible(ask.context, &ask.cf, &[]);
                self.write(Kind::BatchDelete, common, now, |region, stamp| {
                    let command = command::delete_all(stamp, &ask.keys)?;
                    region.check_keys(ask.keys.iter().map(Bytes::as_ref))?;
                    Ok(command)
                })
            }
            Asked::RawDeleteRange(ask) => {
                let common = admissible(ask.context, &ask.cf, &[]);
                self.write(Kind::DeleteRange, common, now, |region, stamp| {
                    let command = command::delete_range(stamp, &ask.start_key, &ask.end_key)?;
                    region.check_range(&ask.start_key, &ask.end_key)?;
                    Ok(command)
                })
            }
            Asked::Empty(ask) => {
                let response = BatchCommandsEmptyResponse { test_id: ask.test_id };
                Begun::Finished(None, Finished::ok(Response::Empty(response)))
            }
        }
    }

    fn write(
        &self,
        kind: Kind,
        common: Result<Context, String>,
        now: Instant,
        encode: impl FnOnce(&Admitted, Stamp) -> Result<Bytes, Problem>,
    ) -> Begun {
        let proposal = common.map_err(Problem::Invalid).and_then(|context| {
            let region = self.directory().admit(&context)?;
            region.check_leader()?;
            let command = encode(&region, region.stamp(self.time.at(now)))?;
            Ok((region.region.id, command))
        });
        match proposal {
            Ok((region, command)) => Begun::Write { kind, region, command },
            Err(problem) => Begun::refused(kind, problem),
        }
    }

    fn read(
        &self,
        kind: Kind,
        context: Option<Context>,
        cf: &str,
        what: What,
        now: Instant,
    ) -> Begun {
        let context = match admissible(context, cf, &[]) {
            Ok(context) => context,
            Err(reason) => return Begun::refused(kind, Problem::Invalid(reason)),
        };
        if let Err(reason) = what.check() {
            return Begun::refused(kind, Problem::Invalid(reason));
        }
        let read = Read::new(kind, context, what);
        if self.is_large(&read) {
            return Begun::Elsewhere(Box::new(read));
        }
        match self.attempt(&read, now, Effort::Brief) {
            Attempt::Finished(finished) => Begun::Finished(Some(kind), finished),
            Attempt::NeedsIndex => Begun::Index(Box::new(read)),
            Attempt::TooLong => Begun::Elsewhere(Box::new(read)),
        }
    }
}

impl Begun {
    fn refused(kind: Kind, problem: Problem) -> Self {
        let finished = match problem {
            Problem::Region(error) => Finished::region_error(kind, &error),
            Problem::Invalid(reason) => Finished::invalid(kind, reason),
        };
        Begun::Finished(Some(kind), finished)
    }
}

/// The context, if the column family and the times to live are something that we serve. `for_cas`
/// needs nothing from us: every write goes through the log, where a compare-and-set is in order
/// with it.
fn admissible(context: Option<Context>, cf: &str, ttls: &[u64]) -> Result<Context, String> {
    let context = context.unwrap_or_default();
    if !matches!(cf, "" | "default") {
        return Err(format!(
            "column family {cf:?} is not served: use \"default\", or leave it empty"
        ));
    }
    if context.api_version != 0 {
        return Err(format!("api_version {} is not served: use API V1 (0)", context.api_version));
    }
    if ttls.iter().any(|ttl| *ttl != 0) {
        return Err("time to live is not served: send ttl 0".to_owned());
    }
    Ok(context)
}
