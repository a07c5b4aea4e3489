//! Operations on many keys, in any number of regions.
//!
//! Keys are sorted, cut by region and into parts of bounded size; the parts run at the same time,
//! up to [`crate::ClientOptions::batch_concurrency`]. **Not atomic**: each part is, the whole is
//! not, and other clients may see some parts before others. A part that meets a split is cut anew.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, stream};
use quorate_proto::wire::{kvrpcpb, tikvpb::batch_commands_request::request::Cmd as Command};

use crate::{
    Client, Error, KvPair, ReadOptions, Result,
    client::{Inner, check_key, check_pair, unexpected},
    command::Answer,
    execute::{Attempt, Exchange, Place},
};

/// Most items of one part that writes.
const WRITE_ITEMS: usize = 1_024;
/// Most bytes of one part that writes; far below what a log entry may have.
const WRITE_BYTES: usize = 512 * 1024;
/// Most keys of one part that reads. Where the answer is still too large, the part is halved.
const READ_ITEMS: usize = 256;
/// Most items of one call.
const MAX_ITEMS: usize = 10_000_000;

/// How the items of one batch look.
struct Shape<T> {
    key: fn(&T) -> &Bytes,
    bytes: fn(&T) -> usize,
    most_items: usize,
    make: fn(&[T], kvrpcpb::Context) -> Command,
}

/// What became of one part.
struct Part<T> {
    items: Vec<T>,
    result: Result<Answer>,
}

impl Client {
    /// The values of many keys, in the order of `keys`. Each is linearizable, all together are no
    /// snapshot.
    ///
    /// # Errors
    /// As [`Client::get`]; all or nothing.
    pub async fn batch_get(&self, keys: Vec<Bytes>) -> Result<Vec<(Bytes, Option<Bytes>)>> {
        self.batch_get_with(keys, ReadOptions::default()).await
    }

    /// As [`Self::batch_get`], from the replicas that `options` names.
    ///
    /// # Errors
    /// As [`Self::batch_get`].
    pub async fn batch_get_with(
        &self,
        keys: Vec<Bytes>,
        options: ReadOptions,
    ) -> Result<Vec<(Bytes, Option<Bytes>)>> {
        check_count(keys.len())?;
        for key in &keys {
            check_key(key)?;
        }
        let mut wanted = keys.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let attempt = self.inner.read("batch_get", options);
        let shape = Shape {
            key: |key| key,
            bytes: Bytes::len,
            most_items: READ_ITEMS,
            make: |keys, context| {
                Command::RawBatchGet(kvrpcpb::RawBatchGetRequest {
                    context: Some(context),
                    keys: keys.to_vec(),
                    cf: String::new(),
                })
            },
        };
        let mut found = HashMap::with_capacity(wanted.len());
        for part in self.inner.run_parts(&attempt, wanted, &shape).await {
            let pairs = match part.result? {
                Answer::Pairs(pairs) => pairs,
                other => return Err(unexpected(&attempt, &other)),
            };
            for pair in pairs {
                if let Some(error) = pair.error {
                    let operation = attempt.operation;
                    return Err(Error::Refused { operation, reason: error.abort });
                }
                found.insert(pair.key, pair.value);
            }
        }
        Ok(keys
            .into_iter()
            .map(|key| {
                let value = found.get(&key).cloned();
                (key, value)
            })
            .collect())
    }

    /// Sets many pairs; of pairs with one key the last counts. Not atomic across regions, nor
    /// across the parts (of at most 1,024 pairs and 512 KiB) that one region's pairs are cut into.
    ///
    /// # Errors
    /// As [`Client::put`], and [`Error::Partial`] where some parts were applied and others not.
    pub async fn batch_put(&self, pairs: Vec<KvPair>) -> Result<()> {
        check_count(pairs.len())?;
        for (key, value) in &pairs {
            check_pair(key, value)?;
        }
        let pairs = last_of_each(pairs, |pair| &pair.0);
        let shape = Shape {
            key: |pair: &KvPair| &pair.0,
            bytes: |pair| pair.0.len() + pair.1.len() + 8,
            most_items: WRITE_ITEMS,
            make: |pairs, context| {
                let pair = |(key, value): &KvPair| kvrpcpb::KvPair {
                    error: None,
                    key: key.clone(),
                    value: value.clone(),
                };
                Command::RawBatchPut(kvrpcpb::RawBatchPutRequest {
                    context: Some(context),
                    pairs: pairs.iter().map(pair).collect(),
                    cf: String::new(),
                    ttl: 0,
                    for_cas: false,
                    ttls: Vec::new(),
                })
            },
        };
        self.inner.write_parts("batch_put", pairs, &shape).await
    }

    /// Removes many keys, whether they were there or not. Not atomic, as [`Self::batch_put`].
    ///
    /// # Errors
    /// As [`Self::batch_put`].
    pub async fn batch_delete(&self, keys: Vec<Bytes>) -> Result<()> {
        check_count(keys.len())?;
        for key in &keys {
            check_key(key)?;
        }
        let shape = Shape {
            key: |key| key,
            bytes: |key: &Bytes| key.len() + 4,
            most_items: WRITE_ITEMS,
            make: |keys, context| {
                Command::RawBatchDelete(kvrpcpb::RawBatchDeleteRequest {
                    context: Some(context),
                    keys: keys.to_vec(),
                    cf: String::new(),
                    for_cas: false,
                })
            },
        };
        let keys = last_of_each(keys, |key| key);
        self.inner.write_parts("batch_delete", keys, &shape).await
    }
}

impl Inner {
    async fn write_parts<T: Clone>(
        &self,
        operation: &'static str,
        items: Vec<T>,
        shape: &Shape<T>,
    ) -> Result<()> {
        let attempt = self.write(operation);
        let total = items.len();
        let parts = self.run_parts(&attempt, items, shape).await;
        let only = parts.len() == 1;
        let mut done = 0;
        let mut failures = Vec::new();
        for part in parts {
            match part.result {
                Ok(Answer::Done) => done += part.items.len(),
                Ok(other) => failures.push(unexpected(&attempt, &other)),
                Err(error) => failures.push(error),
            }
        }
        let gravest = failures.iter().position(Error::is_undetermined).unwrap_or(0);
        match failures.into_iter().nth(gravest) {
            None => Ok(()),
            Some(error) if only || (done == 0 && !error.is_undetermined()) => Err(error),
            Some(error) => Err(Error::Partial { operation, done, total, first: Box::new(error) }),
        }
    }

    /// Cuts `items`, sorted by key, into parts and runs them.
    async fn run_parts<T>(
        &self,
        attempt: &Attempt,
        mut items: Vec<T>,
        shape: &Shape<T>,
    ) -> Vec<Part<T>> {
        let mut parts = Vec::new();
        let mut failed = None;
        items.reverse();
        while let Some(first) = items.last() {
            let place = Place::At((shape.key)(first).clone());
            let route = match self.route(&mut attempt.part(), &place).await {
                Ok(route) => route,
                Err(error) => {
                    items.reverse();
                    failed = Some(Part { items, result: Err(error) });
                    break;
                }
            };
            let mut part = Vec::new();
            let mut bytes = 0;
            while let Some(next) = items.pop_if(|item| {
                part.is_empty()
                    || (part.len() < shape.most_items
                        && bytes + (shape.bytes)(item) <= WRITE_BYTES
                        && route.region.range.contains((shape.key)(item)))
            }) {
                bytes += (shape.bytes)(&next);
                part.push(next);
            }
            parts.push(part);
        }
        let running = parts.into_iter().map(|part| self.run_part(attempt.part(), part, shape));
        let concurrency = self.options.batch_concurrency.max(1);
        let done = stream::iter(running).buffer_unordered(concurrency).collect::<Vec<_>>().await;
        done.into_iter().flatten().chain(failed).collect()
    }

    /// Runs one part, cut anew wherever its region has changed.
    async fn run_part<T>(
        &self,
        mut attempt: Attempt,
        items: Vec<T>,
        shape: &Shape<T>,
    ) -> Vec<Part<T>> {
        let mut open = vec![items];
        let mut done = Vec::new();
        while let Some(mut items) = open.pop() {
            let (Some(first), Some(last)) = (items.first(), items.last()) else { continue };
            let place = Place::At((shape.key)(first).clone());
            let last = (shape.key)(last).clone();
            let exchanged = self
                .exchange(&mut attempt, &place, |region, context| {
                    region.range.contains(&last).then(|| (shape.make)(&items, context))
                })
                .await;
            let moved = match exchanged {
                Ok(Exchange::Answered(answer, _)) => {
                    done.push(Part { items, result: Ok(answer) });
                    continue;
                }
                Ok(Exchange::TooLarge(_)) if items.len() > 1 => {
                    let beyond = items.split_off(items.len() / 2);
                    open.extend([beyond, items]);
                    continue;
                }
                Ok(Exchange::TooLarge(reason)) => {
                    Err(Error::Refused { operation: attempt.operation, reason })
                }
                Ok(Exchange::Moved) => self.route(&mut attempt, &place).await,
                Err(error) => Err(error),
            };
            match moved {
                Ok(route) => {
                    let inside = items
                        .partition_point(|item| route.region.range.contains((shape.key)(item)));
                    let beyond = items.split_off(inside.max(1));
                    open.extend([beyond, items]);
                }
                Err(error) => done.push(Part { items, result: Err(error) }),
            }
        }
        done
    }
}

/// Sorted by key; of equal keys the last.
fn last_of_each<T>(mut items: Vec<T>, key: fn(&T) -> &Bytes) -> Vec<T> {
    // Stable, so that equal keys keep their order; then the last of each comes first.
    items.sort_by(|a, b| key(a).cmp(key(b)));
    items.reverse();
    items.dedup_by(|later, kept| key(later) == key(kept));
    items.reverse();
    items
}

fn check_count(count: usize) -> Result<()> {
    if count > MAX_ITEMS {
        return Err(Error::InvalidArgument(format!(
            "{count} items in one batch, the limit is {MAX_ITEMS}; use several batches"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_keys_the_last_counts() {
        let pair = |key: &'static str, value: &'static str| (Bytes::from(key), Bytes::from(value));
        let pairs =
            vec![pair("b", "1"), pair("a", "1"), pair("b", "2"), pair("a", "2"), pair("b", "3")];
        let kept = last_of_each(pairs, |pair| &pair.0);
        assert_eq!(kept, vec![pair("a", "2"), pair("b", "3")]);
    }
}
