//! What stores and operators ask of placement. All of it may be asked again: placement answers a
//! repeated call as it did the first.

use futures::Stream;
use quorate_proto::{
    Region, RegionId, StoreId,
    wire::placement::{self as wire, placement_client::PlacementClient as Wire},
};
use tonic::{Streaming, transport::Channel};

use super::PlacementClient;
use crate::{Error, Result};

/// Largest answer taken.
pub(super) const DECODE_BYTES: usize = 32 * 1024 * 1024;

impl PlacementClient {
    /// A store announces itself.
    ///
    /// # Errors
    /// [`Error::Refused`] in placement's words (another cluster, a store id used twice…);
    /// [`Error::Unavailable`] where no leader answers within the deadline.
    pub async fn join(&self, request: wire::JoinRequest) -> Result<wire::JoinResponse> {
        let call = |channel| {
            let request = request.clone();
            async move { admin(channel).join(request).await }
        };
        self.core.call("join", self.deadline(), call).await
    }

    /// Opens a store's stream: reports up, orders down. **One attempt**, at the leader known now,
    /// since a stream cannot be sent twice. After a failure, also of the stream later on, the
    /// leader is looked up by the next call or has been by this one: call again with a new stream
    /// after a pause of your own.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn heartbeat(
        &self,
        reports: impl Stream<Item = wire::StoreReport> + Send + 'static,
    ) -> Result<Streaming<wire::StoreOrders>> {
        let call = |channel| async move { admin(channel).heartbeat(reports).await };
        self.core.once("heartbeat", call).await
    }

    /// Ids for the children of a split.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn ask_split(
        &self,
        request: wire::AskSplitRequest,
    ) -> Result<wire::AskSplitResponse> {
        let call = |channel| {
            let request = request.clone();
            async move { admin(channel).ask_split(request).await }
        };
        self.core.call("ask_split", self.deadline(), call).await
    }

    /// The cluster in one look.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn status(&self) -> Result<wire::StatusResponse> {
        let call = |channel| async move { admin(channel).status(wire::StatusRequest {}).await };
        self.core.call("status", self.deadline(), call).await
    }

    /// Splits regions at keys, or one in half; the regions that hold the keys afterwards.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn split_region(&self, request: wire::SplitRegionRequest) -> Result<Vec<Region>> {
        let call = |channel| {
            let request = request.clone();
            async move { admin(channel).split_region(request).await }
        };
        // It answers once the split is done.
        let patience = self.core.options().deadline;
        let answer =
            self.core.call_patiently("split_region", patience, self.deadline(), call).await?;
        let parsed: Result<Vec<Region>, _> =
            answer.regions.into_iter().map(Region::try_from).collect();
        parsed.map_err(|invalid| Error::Refused {
            operation: "split_region",
            reason: format!("placement sent a region that is invalid: {invalid}"),
        })
    }

    /// Asks that the peer of `region` on `to` leads it.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn transfer_leader(&self, region: RegionId, to: StoreId) -> Result<()> {
        let request = wire::TransferLeaderRequest { region_id: region.0, to_store: to.0 };
        let call = |channel| async move { admin(channel).transfer_leader(request).await };
        self.core.call("transfer_leader", self.deadline(), call).await.map(|_| ())
    }

    /// Asks that another member leads placement; 0: any other. The new leader's id.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn transfer_placement_leader(&self, to_member: u64) -> Result<u64> {
        let request = wire::TransferPlacementLeaderRequest { to_member };
        let call = |channel| async move { admin(channel).transfer_placement_leader(request).await };
        // The leader waits for the other one to take over: asked twice, it would hand over twice.
        let (operation, patience) = ("transfer_placement_leader", self.core.options().deadline);
        let answer = self.core.call_patiently(operation, patience, self.deadline(), call).await?;
        Ok(answer.leader)
    }
}

fn admin(channel: Channel) -> Wire<Channel> {
    Wire::new(channel).max_decoding_message_size(DECODE_BYTES)
}
