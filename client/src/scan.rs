//! Scans, and the removal of ranges: region after region, page after page.
//!
//! Each page is linearizable; a scan of several pages is no snapshot of one moment. A page that
//! would be larger than clients decode is refused by the store; it is asked for again with half
//! the limit. A page shorter than its limit means that its region holds no more.

use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use quorate_proto::{
    Region, key, limits,
    wire::{kvrpcpb, tikvpb::batch_commands_request::request::Cmd as Command},
};

use crate::{
    Client, Error, KvPair, ReadOptions, Result,
    client::{Inner, check_length, unexpected},
    command::Answer,
    execute::{Attempt, Exchange, Place},
};

/// What is scanned.
struct Scan {
    start: Bytes,
    end: Bytes,
    limit: usize,
    key_only: bool,
    reverse: bool,
}

impl Client {
    /// The first `limit` pairs of `[start, end)`, in order. An empty `end` has no bound.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn scan(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
    ) -> Result<Vec<KvPair>> {
        self.scan_with(start, end, limit, ReadOptions::default()).await
    }

    /// As [`Self::scan`], from the replicas that `options` names.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn scan_with(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
        options: ReadOptions,
    ) -> Result<Vec<KvPair>> {
        let (start, end) = (start.into(), end.into());
        let scan = Scan { start, end, limit, key_only: false, reverse: false };
        self.inner.scan("scan", scan, options).await
    }

    /// The last `limit` pairs of `[start, end)`, largest key first. An empty `end` has no bound.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn reverse_scan(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
    ) -> Result<Vec<KvPair>> {
        self.reverse_scan_with(start, end, limit, ReadOptions::default()).await
    }

    /// As [`Self::reverse_scan`], from the replicas that `options` names.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn reverse_scan_with(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
        options: ReadOptions,
    ) -> Result<Vec<KvPair>> {
        let (start, end) = (start.into(), end.into());
        let scan = Scan { start, end, limit, key_only: false, reverse: true };
        self.inner.scan("reverse_scan", scan, options).await
    }

    /// As [`Self::scan`], without the values.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn scan_keys(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
    ) -> Result<Vec<Bytes>> {
        let (start, end) = (start.into(), end.into());
        let scan = Scan { start, end, limit, key_only: true, reverse: false };
        let pairs = self.inner.scan("scan_keys", scan, ReadOptions::default()).await?;
        Ok(pairs.into_iter().map(|(key, _)| key).collect())
    }

    /// Several scans at once, each of at most `each_limit` pairs; in the order of `ranges`.
    ///
    /// # Errors
    /// As [`Client::get`]; all or nothing.
    pub async fn batch_scan(
        &self,
        ranges: Vec<(Bytes, Bytes)>,
        each_limit: usize,
    ) -> Result<Vec<Vec<KvPair>>> {
        let scans = ranges.into_iter().map(|(start, end)| {
            let scan = Scan { start, end, limit: each_limit, key_only: false, reverse: false };
            self.inner.scan("batch_scan", scan, ReadOptions::default())
        });
        let concurrency = self.inner.options.batch_concurrency.max(1);
        stream::iter(scans).buffered(concurrency).try_collect().await
    }

    /// Removes every key of `[start, end)`, region after region; an empty `end` has no bound.
    /// Atomic within one region, not across several.
    ///
    /// # Errors
    /// As [`Client::put`]. Where some regions were done before one failed: [`Error::Undetermined`],
    /// which says how far it came; doing it again is harmless unless somebody wrote there since.
    pub async fn delete_range(&self, start: impl Into<Bytes>, end: impl Into<Bytes>) -> Result<()> {
        let (start, end) = (start.into(), end.into());
        check_range(&start, &end)?;
        let mut attempt = self.inner.write("delete_range");
        let mut cursor = start.clone();
        while end.is_empty() || cursor < end {
            let make = |region: &Region, context| {
                Some(Command::RawDeleteRange(kvrpcpb::RawDeleteRangeRequest {
                    context: Some(context),
                    start_key: cursor.clone(),
                    end_key: lower_end(&end, &region.range.end),
                    cf: String::new(),
                }))
            };
            let place = Place::At(cursor.clone());
            match self.inner.exchange(&mut attempt, &place, make).await {
                Ok(Exchange::Answered(Answer::Done, route)) => {
                    if route.region.range.end.is_empty() {
                        break;
                    }
                    cursor = route.region.range.end.clone();
                }
                Ok(Exchange::Answered(other, _)) => return Err(unexpected(&attempt, &other)),
                Ok(Exchange::Moved) => {}
                Ok(Exchange::TooLarge(_)) => unreachable!("only reads have answers that are large"),
                Err(error) if cursor == start => return Err(error),
                Err(error) => {
                    let cause = format!("removed below {}, then: {error}", key::display(&cursor));
                    return Err(Error::Undetermined { operation: "delete_range", cause });
                }
            }
        }
        Ok(())
    }
}

impl Inner {
    async fn scan(
        &self,
        operation: &'static str,
        scan: Scan,
        options: ReadOptions,
    ) -> Result<Vec<KvPair>> {
        check_range(&scan.start, &scan.end)?;
        let mut attempt = self.read(operation, options);
        let mut found = Vec::new();
        // Where the next page begins: its first key, or, in reverse, the first key above it.
        let mut cursor = if scan.reverse { scan.end.clone() } else { scan.start.clone() };
        let mut most = self.options.scan_page.clamp(1, limits::MAX_SCAN_LIMIT);
        while found.len() < scan.limit && !scan.is_over(&cursor) {
            match self.page(&mut attempt, &scan, &cursor, &mut most, &mut found).await? {
                Some(next) => cursor = next,
                None => break,
            }
        }
        Ok(found)
    }

    /// One page, of at most `most` pairs; the next cursor, none at the end of the keys.
    async fn page(
        &self,
        attempt: &mut Attempt,
        scan: &Scan,
        cursor: &Bytes,
        most: &mut u32,
        found: &mut Vec<KvPair>,
    ) -> Result<Option<Bytes>> {
        let limit = u32::try_from(scan.limit - found.len()).map_or(*most, |left| left.min(*most));
        let make = |region: &Region, context| {
            let (start_key, end_key) = scan.clip(cursor, region);
            Some(Command::RawScan(kvrpcpb::RawScanRequest {
                context: Some(context),
                start_key,
                limit,
                key_only: scan.key_only,
                cf: String::new(),
                reverse: scan.reverse,
                end_key,
            }))
        };
        let place = match scan.reverse {
            false => Place::At(cursor.clone()),
            true => Place::Below(cursor.clone()),
        };
        let (answer, route) = match self.exchange(attempt, &place, make).await? {
            Exchange::Answered(answer, route) => (answer, route),
            Exchange::Moved => return Ok(Some(cursor.clone())),
            Exchange::TooLarge(_) if limit > 1 => {
                *most = limit / 2;
                return Ok(Some(cursor.clone()));
            }
            Exchange::TooLarge(reason) => {
                return Err(Error::Refused { operation: attempt.operation, reason });
            }
        };
        let pairs = match answer {
            Answer::Pairs(pairs) => pairs,
            other => return Err(unexpected(attempt, &other)),
        };
        let full = pairs.len() >= limit as usize;
        for pair in pairs {
            if let Some(error) = pair.error {
                let operation = attempt.operation;
                return Err(Error::Refused { operation, reason: error.abort });
            }
            let ordered = match found.last() {
                Some((last, _)) if scan.reverse => pair.key < *last,
                Some((last, _)) => pair.key > *last,
                None => true,
            };
            if !ordered {
                return Err(Error::Refused {
                    operation: attempt.operation,
                    reason: format!("{} sent keys out of order", route.region.id),
                });
            }
            found.push((pair.key, pair.value));
        }
        Ok(match found.last() {
            Some((last, _)) if full && scan.reverse => Some(last.clone()),
            Some((last, _)) if full => Some(after(last)),
            Some(_) | None => {
                let range = &route.region.range;
                let edge = if scan.reverse { &range.start } else { &range.end };
                (!edge.is_empty()).then(|| edge.clone())
            }
        })
    }
}

impl Scan {
    fn is_over(&self, cursor: &Bytes) -> bool {
        match self.reverse {
            false => !self.end.is_empty() && *cursor >= self.end,
            true => !cursor.is_empty() && *cursor <= self.start,
        }
    }

    /// The two ends as the wire wants them: a reverse scan starts at its upper end.
    fn clip(&self, cursor: &Bytes, region: &Region) -> (Bytes, Bytes) {
        match self.reverse {
            false => (cursor.clone(), lower_end(&self.end, &region.range.end)),
            true => (
                lower_end(cursor, &region.range.end),
                self.start.clone().max(region.range.start.clone()),
            ),
        }
    }
}

/// The lower of two ends, of which an empty one has no bound.
fn lower_end(a: &Bytes, b: &Bytes) -> Bytes {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        (false, false) => a.min(b).clone(),
    }
}

/// The smallest key above `key`.
fn after(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

fn check_range(start: &Bytes, end: &Bytes) -> Result<()> {
    check_length(start)?;
    check_length(end)?;
    if !end.is_empty() && start > end {
        return Err(Error::InvalidArgument(format!(
            "the range starts at {} and ends before that, at {}; exchange the two",
            key::display(start),
            key::display(end)
        )));
    }
    Ok(())
}
