//! The standard health service: `SERVING` from bootstrap to shutdown.

use std::pin::Pin;

use futures::Stream;
use quorate_proto::wire::health::health_check_response::ServingStatus;
use quorate_proto::wire::health::health_server::Health;
use quorate_proto::wire::health::{HealthCheckRequest, HealthCheckResponse};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// Names that can be asked for beside the empty one, which means the whole process.
const SERVICES: [&str; 2] = ["tikvpb.Tikv", "quorate.peer.Peer"];

/// Tells who asks whether this store serves.
#[derive(Clone)]
pub(crate) struct HealthService {
    serving: watch::Receiver<bool>,
}

impl HealthService {
    /// Follows a switch.
    pub(crate) fn new(serving: watch::Receiver<bool>) -> Self {
        Self { serving }
    }
}

fn known(service: &str) -> bool {
    service.is_empty() || SERVICES.contains(&service)
}

fn answer(serving: bool) -> HealthCheckResponse {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !known(&service) {
            return Err(Status::not_found(format!("no service {service:?} here; ask for \"\"")));
        }
        Ok(Response::new(answer(*self.serving.borrow())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = known(&request.into_inner().service);
        let mut serving = self.serving.clone();
        serving.mark_changed();
        let stream = futures::stream::unfold(serving, move |mut serving| async move {
            // The sender has gone: the process ends, and the stream with it.
            serving.changed().await.ok()?;
            let status = if known {
                answer(*serving.borrow_and_update())
            } else {
                HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() }
            };
            Some((Ok(status), serving))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
