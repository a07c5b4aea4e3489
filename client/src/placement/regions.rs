//! What placement knows of regions and stores.

use std::time::Instant;

use bytes::Bytes;
use quorate_proto::{
    Peer, Region, RegionId, StoreId, key, limits,
    wire::{
        metapb,
        pdpb::{self, pd_client::PdClient},
    },
};
use tonic::{Response, Status, transport::Channel};

use super::{PlacementClient, RegionInfo};
use crate::{Error, Result};

/// Regions in one answer.
const PAGE: usize = 1_024;
/// Largest answer taken: a page of regions with long keys.
const DECODE_BYTES: usize = 32 * 1024 * 1024;

impl PlacementClient {
    /// The members, and which of them leads.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where no leader answers within the deadline.
    pub async fn members(&self) -> Result<pdpb::GetMembersResponse> {
        let call = |channel| async move {
            pd(channel).get_members(pdpb::GetMembersRequest { header: None }).await
        };
        self.core.call("members", self.deadline(), call).await
    }

    /// The region that holds `key`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where no leader answers, or the cluster is not bootstrapped, within
    /// the deadline.
    pub async fn get_region(&self, key: impl Into<Bytes>) -> Result<RegionInfo> {
        self.region_until(key.into(), self.deadline()).await
    }

    /// The region with that id, none where there is none.
    ///
    /// # Errors
    /// As [`Self::get_region`].
    pub async fn get_region_by_id(&self, id: RegionId) -> Result<Option<RegionInfo>> {
        let call = |channel| {
            let request =
                pdpb::GetRegionByIdRequest { header: self.core.header(), region_id: id.0 };
            async move {
                let answer = pd(channel).get_region_by_id(request).await?.into_inner();
                if error_type(answer.header.as_ref()) == Some(pdpb::ErrorType::RegionNotFound) {
                    return Ok(Response::new(None));
                }
                checked(answer.header.as_ref())?;
                match answer.region {
                    Some(region) => Ok(Response::new(Some(parse(region, answer.leader)?))),
                    None => Ok(Response::new(None)),
                }
            }
        };
        self.core.call("get_region_by_id", self.deadline(), call).await
    }

    /// The regions that hold the keys of `[start, end)`, in order; an empty `end` has no bound, a
    /// `limit` of 0 neither. Asked for page by page.
    ///
    /// # Errors
    /// As [`Self::get_region`].
    pub async fn scan_regions(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
    ) -> Result<Vec<RegionInfo>> {
        let (mut cursor, end) = (start.into(), end.into());
        let deadline = self.deadline();
        let mut found: Vec<RegionInfo> = Vec::new();
        loop {
            let left = if limit == 0 { PAGE } else { (limit - found.len()).min(PAGE) };
            let page = self.regions_until(cursor.clone(), end.clone(), left, deadline).await?;
            let Some(last) = page.last() else { return Ok(found) };
            let next = last.region.range.end.clone();
            found.extend(page);
            let over = next.is_empty() || (!end.is_empty() && next >= end) || next <= cursor;
            if over || found.len() == limit {
                return Ok(found);
            }
            cursor = next;
        }
    }

    /// The store with that id.
    ///
    /// # Errors
    /// As [`Self::get_region`]; [`Error::Refused`] where there is no such store.
    pub async fn get_store(&self, id: StoreId) -> Result<metapb::Store> {
        self.store_until(id, self.deadline()).await
    }

    /// Every store, removed ones too.
    ///
    /// # Errors
    /// As [`Self::get_region`].
    pub async fn get_all_stores(&self) -> Result<Vec<metapb::Store>> {
        let call = |channel| {
            let request = pdpb::GetAllStoresRequest {
                header: self.core.header(),
                exclude_tombstone_stores: false,
            };
            async move {
                let answer = pd(channel).get_all_stores(request).await?.into_inner();
                checked(answer.header.as_ref())?;
                Ok(Response::new(answer.stores))
            }
        };
        self.core.call("get_all_stores", self.deadline(), call).await
    }

    pub(crate) async fn region_until(&self, key: Bytes, deadline: Instant) -> Result<RegionInfo> {
        let call = |channel| {
            let request =
                pdpb::GetRegionRequest { header: self.core.header(), region_key: key.clone() };
            async move { region(pd(channel).get_region(request).await?.into_inner()) }
        };
        self.core.call("get_region", deadline, call).await
    }

    /// The region that holds the keys just below `end`; empty: the last region.
    pub(crate) async fn region_below_until(
        &self,
        end: Bytes,
        deadline: Instant,
    ) -> Result<RegionInfo> {
        if end.is_empty() {
            // Above every key that can be: the last region holds it.
            let beyond = Bytes::from(vec![0xff; limits::MAX_KEY_BYTES + 1]);
            return self.region_until(beyond, deadline).await;
        }
        let at = self.region_until(end.clone(), deadline).await?;
        if at.region.range.start < end {
            return Ok(at);
        }
        let call = |channel| {
            let request =
                pdpb::GetRegionRequest { header: self.core.header(), region_key: end.clone() };
            async move { region(pd(channel).get_prev_region(request).await?.into_inner()) }
        };
        self.core.call("get_prev_region", deadline, call).await
    }

    /// One page of [`Self::scan_regions`].
    pub(crate) async fn regions_until(
        &self,
        start: Bytes,
        end: Bytes,
        limit: usize,
        deadline: Instant,
    ) -> Result<Vec<RegionInfo>> {
        let call = |channel| {
            let request = pdpb::ScanRegionsRequest {
                header: self.core.header(),
                start_key: start.clone(),
                limit: i32::try_from(limit).unwrap_or(i32::MAX),
                end_key: end.clone(),
            };
            async move {
                let answer = pd(channel).scan_regions(request).await?.into_inner();
                checked(answer.header.as_ref())?;
                let parsed: Result<Vec<_>, Status> = if answer.regions.is_empty() {
                    let leaders =
                        answer.leaders.into_iter().map(Some).chain(std::iter::repeat(None));
                    let metas = answer.region_metas.into_iter();
                    metas.zip(leaders).map(|(region, leader)| parse(region, leader)).collect()
                } else {
                    let missing = || Status::internal("an entry without a region");
                    let parse_one = |entry: pdpb::Region| {
                        parse(entry.region.ok_or_else(missing)?, entry.leader)
                    };
                    answer.regions.into_iter().map(parse_one).collect()
                };
                parsed.map(Response::new)
            }
        };
        self.core.call("scan_regions", deadline, call).await
    }

    pub(crate) async fn store_until(
        &self,
        id: StoreId,
        deadline: Instant,
    ) -> Result<metapb::Store> {
        let call = |channel| {
            let request = pdpb::GetStoreRequest { header: self.core.header(), store_id: id.0 };
            async move {
                let answer = pd(channel).get_store(request).await?.into_inner();
                checked(answer.header.as_ref())?;
                let store = answer.store.filter(|store| store.id == id.0);
                store
                    .map(Response::new)
                    .ok_or_else(|| Status::not_found(format!("{id} is not in the cluster")))
            }
        };
        self.core.call("get_store", deadline, call).await
    }
}

impl RegionInfo {
    /// The region's leader, or an error that says that there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub fn leader(&self) -> Result<Peer> {
        self.leader.ok_or_else(|| Error::Unavailable {
            what: format!("the leader of {}", self.region.id),
            last: "placement knows none at the moment".to_owned(),
        })
    }
}

fn pd(channel: Channel) -> PdClient<Channel> {
    PdClient::new(channel).max_decoding_message_size(DECODE_BYTES)
}

fn error_type(header: Option<&pdpb::ResponseHeader>) -> Option<pdpb::ErrorType> {
    header.and_then(|header| header.error.as_ref()).map(pdpb::Error::r#type)
}

/// The error of a header as a status, so that there is one way to judge failures.
fn checked(header: Option<&pdpb::ResponseHeader>) -> Result<(), Status> {
    let message = || {
        let error = header.and_then(|header| header.error.as_ref());
        error.map_or_else(String::new, |error| error.message.clone())
    };
    match error_type(header) {
        None | Some(pdpb::ErrorType::Ok) => Ok(()),
        // All of these pass: the cluster is being bootstrapped, or a leader is changing.
        Some(pdpb::ErrorType::NotBootstrapped) => {
            Err(Status::aborted(format!("the cluster is not bootstrapped yet: {}", message())))
        }
        Some(pdpb::ErrorType::Unknown | pdpb::ErrorType::RegionNotFound) => {
            Err(Status::aborted(message()))
        }
        Some(
            pdpb::ErrorType::StoreTombstone
            | pdpb::ErrorType::AlreadyBootstrapped
            | pdpb::ErrorType::IncompatibleVersion,
        ) => Err(Status::failed_precondition(message())),
    }
}

fn region(answer: pdpb::GetRegionResponse) -> Result<Response<RegionInfo>, Status> {
    checked(answer.header.as_ref())?;
    let region = answer.region.ok_or_else(|| Status::aborted("placement knows no region there"))?;
    parse(region, answer.leader).map(Response::new)
}

fn parse(region: metapb::Region, leader: Option<metapb::Peer>) -> Result<RegionInfo, Status> {
    let region = Region::try_from(region).map_err(|invalid| {
        Status::aborted(format!("a region from placement is invalid: {invalid}"))
    })?;
    // A leader with number 0 is one that is not known.
    let leader = leader.and_then(|peer| Peer::try_from(peer).ok());
    Ok(RegionInfo { region, leader })
}

/// Shows a region as a person reads it.
impl std::fmt::Display for RegionInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Region { id, range, .. } = &self.region;
        match self.leader {
            Some(leader) => write!(f, "{id} {range} led by {}", leader.store),
            None => write!(f, "{id} [{}, …) without a leader", key::display(&range.start)),
        }
    }
}
