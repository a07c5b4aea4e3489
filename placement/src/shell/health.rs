//! The standard gRPC health service: serving until the process is told to end.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use quorate_proto::wire::health::health_check_response::ServingStatus;
use quorate_proto::wire::health::{HealthCheckRequest, HealthCheckResponse, health_server::Health};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::cluster::Cluster;

/// The services that can be asked for; empty: the process.
const SERVICES: [&str; 3] = ["", "pdpb.PD", "quorate.placement.Placement"];

/// The service.
pub(crate) struct HealthService(pub(crate) Arc<Cluster>);

fn answer(service: &str, stopping: bool) -> HealthCheckResponse {
    let status = match (SERVICES.contains(&service), stopping) {
        (false, _) => ServingStatus::ServiceUnknown,
        (true, false) => ServingStatus::Serving,
        (true, true) => ServingStatus::NotServing,
    };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found("placement has no such service"));
        }
        Ok(Response::new(answer(&service, *self.0.stopping.borrow())))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        // Ends with the news that it stops: the server could not end before its streams.
        let mut over = false;
        let changes = WatchStream::new(self.0.stopping.subscribe());
        let answers = changes.take_while(move |stopping| !std::mem::replace(&mut over, *stopping));
        let answers = answers.map(move |stopping| Ok(answer(&service, stopping)));
        Ok(Response::new(Box::pin(answers)))
    }
}
