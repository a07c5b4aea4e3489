//! The standard gRPC health service: serving until the process is told to end.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use quorate_proto::wire::health::health_check_response::ServingStatus;
use quorate_proto::wire::health::{HealthCheckRequest, HealthCheckResponse, health_server::Health};
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
        // Ends with the news that the process stops: the server waits for its streams.
        let start = Some((self.0.stopping.subscribe(), true));
        let answers = stream::unfold(start, move |state| {
            let service = service.clone();
            async move {
                let (mut stopping, first) = state?;
                if !first {
                    stopping.changed().await.ok()?;
                }
                let over = *stopping.borrow_and_update();
                Some((Ok(answer(&service, over)), (!over).then_some((stopping, false))))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
