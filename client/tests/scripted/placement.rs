//! A placement member that answers from the shared state.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use quorate_proto::{
    Region, StoreId,
    wire::{
        metapb,
        pdpb::{
            self,
            pd_server::{Pd, PdServer},
        },
        placement::{
            self as own,
            placement_server::{Placement, PlacementServer},
        },
    },
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport};

use crate::world::Shared;

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
struct Member {
    at: usize,
    state: Shared,
}

pub(crate) async fn serve(at: usize, state: Shared, listener: TcpListener) {
    let member = Member { at, state };
    transport::Server::builder()
        .add_service(PdServer::new(member.clone()))
        .add_service(PlacementServer::new(member))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .unwrap();
}

impl Member {
    fn header(&self) -> Option<pdpb::ResponseHeader> {
        let cluster_id = self.state.lock().unwrap().cluster_id;
        Some(pdpb::ResponseHeader { cluster_id, error: None })
    }

    /// Refuses, with a hint, unless this member leads.
    fn lead(&self) -> Result<(), Status> {
        let state = self.state.lock().unwrap();
        if state.member_leads == self.at {
            return Ok(());
        }
        let mut status = Status::unavailable("not the leader");
        let hint = state.members[state.member_leads].parse().unwrap();
        status.metadata_mut().insert("quorate-leader", hint);
        Err(status)
    }

    fn answer(&self, found: Option<(Region, Option<StoreId>)>) -> Answer<pdpb::GetRegionResponse> {
        let mut answer = pdpb::GetRegionResponse { header: self.header(), ..Default::default() };
        if let Some((region, leader)) = found {
            answer.leader = leader.map(|store| (*region.peer_on(store).unwrap()).into());
            answer.region = Some((&region).into());
        }
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl Pd for Member {
    async fn get_members(
        &self,
        request: Request<pdpb::GetMembersRequest>,
    ) -> Answer<pdpb::GetMembersResponse> {
        assert!(request.into_inner().header.is_none() || self.lead().is_ok());
        let header = self.header();
        let state = self.state.lock().unwrap();
        let member = |(at, address): (usize, &String)| pdpb::Member {
            name: format!("placement-{at}"),
            member_id: at as u64 + 1,
            peer_urls: Vec::new(),
            client_urls: vec![format!("http://{address}")],
        };
        let members: Vec<_> = state.members.iter().enumerate().map(member).collect();
        let leader = members.get(state.member_leads).cloned();
        Ok(Response::new(pdpb::GetMembersResponse { header, members, leader, etcd_leader: None }))
    }

    type TsoStream = Answers<pdpb::TsoResponse>;

    async fn tso(&self, request: Request<Streaming<pdpb::TsoRequest>>) -> Answer<Self::TsoStream> {
        self.lead()?;
        let member = self.clone();
        let answers = request.into_inner().map(move |request| {
            let count = request?.count;
            member.lead()?;
            let header = member.header();
            let mut state = member.state.lock().unwrap();
            state.timestamp += u64::from(count);
            let timestamp =
                Some(pdpb::Timestamp { physical: 1_000, logical: state.timestamp as i64 });
            Ok(pdpb::TsoResponse { header, count, timestamp })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Answer<pdpb::GetRegionResponse> {
        self.lead()?;
        let key = request.into_inner().region_key;
        let mut state = self.state.lock().unwrap();
        state.region_questions += 1;
        let found =
            state.known_regions().into_iter().find(|(region, _)| region.range.contains(&key));
        drop(state);
        self.answer(found)
    }

    async fn get_prev_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Answer<pdpb::GetRegionResponse> {
        self.lead()?;
        let key = request.into_inner().region_key;
        let known = self.state.lock().unwrap().known_regions();
        let at = known.iter().position(|(region, _)| region.range.contains(&key));
        let found = at.and_then(|at| at.checked_sub(1)).map(|at| known[at].clone());
        self.answer(found)
    }

    async fn get_region_by_id(
        &self,
        request: Request<pdpb::GetRegionByIdRequest>,
    ) -> Answer<pdpb::GetRegionResponse> {
        self.lead()?;
        let id = request.into_inner().region_id;
        let known = self.state.lock().unwrap().known_regions();
        self.answer(known.into_iter().find(|(region, _)| region.id.0 == id))
    }

    async fn scan_regions(
        &self,
        request: Request<pdpb::ScanRegionsRequest>,
    ) -> Answer<pdpb::ScanRegionsResponse> {
        self.lead()?;
        let request = request.into_inner();
        let header = self.header();
        let mut state = self.state.lock().unwrap();
        state.region_questions += 1;
        let inside = |region: &Region| {
            (region.range.end.is_empty() || region.range.end > request.start_key)
                && (request.end_key.is_empty() || region.range.start < request.end_key)
        };
        let limit = if request.limit <= 0 { usize::MAX } else { request.limit as usize };
        let regions = state
            .known_regions()
            .iter()
            .filter(|(region, _)| inside(region))
            .take(limit)
            .map(|(region, leader)| pdpb::Region {
                region: Some(region.into()),
                leader: leader.map(|store| (*region.peer_on(store).unwrap()).into()),
                ..Default::default()
            })
            .collect();
        Ok(Response::new(pdpb::ScanRegionsResponse { header, regions, ..Default::default() }))
    }

    async fn batch_scan_regions(
        &self,
        _: Request<pdpb::BatchScanRegionsRequest>,
    ) -> Answer<pdpb::BatchScanRegionsResponse> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn get_store(
        &self,
        request: Request<pdpb::GetStoreRequest>,
    ) -> Answer<pdpb::GetStoreResponse> {
        self.lead()?;
        let id = request.into_inner().store_id;
        let header = self.header();
        let address = self.state.lock().unwrap().addresses.get(&StoreId(id)).cloned();
        let store = address.map(|address| metapb::Store { id, address, ..Default::default() });
        Ok(Response::new(pdpb::GetStoreResponse { header, store, stats: None }))
    }

    async fn get_all_stores(
        &self,
        _: Request<pdpb::GetAllStoresRequest>,
    ) -> Answer<pdpb::GetAllStoresResponse> {
        self.lead()?;
        let header = self.header();
        let state = self.state.lock().unwrap();
        let store = |(id, address): (&StoreId, &String)| metapb::Store {
            id: id.0,
            address: address.clone(),
            ..Default::default()
        };
        let stores = state.addresses.iter().map(store).collect();
        Ok(Response::new(pdpb::GetAllStoresResponse { header, stores }))
    }

    async fn update_gc_safe_point(
        &self,
        _: Request<pdpb::UpdateGcSafePointRequest>,
    ) -> Answer<pdpb::UpdateGcSafePointResponse> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn get_gc_state(
        &self,
        _: Request<pdpb::GetGcStateRequest>,
    ) -> Answer<pdpb::GetGcStateResponse> {
        Err(Status::unimplemented("not in this script"))
    }
}

#[tonic::async_trait]
impl Placement for Member {
    async fn join(&self, request: Request<own::JoinRequest>) -> Answer<own::JoinResponse> {
        self.lead()?;
        let request = request.into_inner();
        let state = self.state.lock().unwrap();
        if state.addresses.contains_key(&StoreId(request.store_id)) {
            return Err(Status::already_exists(format!("s{} is in use", request.store_id)));
        }
        let cluster_id = state.cluster_id;
        Ok(Response::new(own::JoinResponse { cluster_id, store_id: 4, ..Default::default() }))
    }

    async fn join_placement(
        &self,
        _: Request<own::JoinPlacementRequest>,
    ) -> Answer<own::JoinPlacementResponse> {
        Err(Status::unimplemented("not in this script"))
    }

    type HeartbeatStream = Answers<own::StoreOrders>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<own::StoreReport>>,
    ) -> Answer<Self::HeartbeatStream> {
        self.lead()?;
        let orders = request.into_inner().map(|report| {
            Ok(own::StoreOrders { sequence: report?.sequence, time_ms: 5, ..Default::default() })
        });
        Ok(Response::new(Box::pin(orders)))
    }

    async fn ask_split(&self, _: Request<own::AskSplitRequest>) -> Answer<own::AskSplitResponse> {
        self.lead()?;
        let ids = vec![own::SplitIds { region_id: 900, peer_ids: vec![901, 902, 903] }];
        Ok(Response::new(own::AskSplitResponse { ids }))
    }

    async fn status(&self, _: Request<own::StatusRequest>) -> Answer<own::StatusResponse> {
        self.lead()?;
        let state = self.state.lock().unwrap();
        let (cluster_id, regions) = (state.cluster_id, state.regions.len() as u64);
        Ok(Response::new(own::StatusResponse { cluster_id, regions, ..Default::default() }))
    }

    async fn split_region(
        &self,
        request: Request<own::SplitRegionRequest>,
    ) -> Answer<own::SplitRegionResponse> {
        self.lead()?;
        let mut state = self.state.lock().unwrap();
        for key in request.into_inner().keys {
            state.split(std::str::from_utf8(&key).unwrap());
        }
        let regions = state.regions.iter().map(|led| (&led.region).into()).collect();
        Ok(Response::new(own::SplitRegionResponse { regions }))
    }

    async fn transfer_leader(
        &self,
        _: Request<own::TransferLeaderRequest>,
    ) -> Answer<own::TransferLeaderResponse> {
        self.lead()?;
        Err(Status::failed_precondition("s9 has no peer of r1; choose one of s1, s2, s3"))
    }

    async fn transfer_placement_leader(
        &self,
        request: Request<own::TransferPlacementLeaderRequest>,
    ) -> Answer<own::TransferPlacementLeaderResponse> {
        self.lead()?;
        let leader = request.into_inner().to_member;
        self.state.lock().unwrap().member_leads = leader as usize - 1;
        Ok(Response::new(own::TransferPlacementLeaderResponse { leader }))
    }
}
