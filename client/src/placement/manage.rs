//! What people ask of placement beyond a status: why things are as they are, and requests to change
//! them. A refusal says which rule stands in the way.
//!
//! The calls take and give the messages of the wire as they are: whoever shows them decides how.

use quorate_proto::{
    RegionId,
    wire::placement::{self as wire, admin_client::AdminClient},
};
use tonic::{Streaming, transport::Channel};

use super::{PlacementClient, calls::DECODE_BYTES};
use crate::Result;

impl PlacementClient {
    /// Why a region is as it is: its replicas, what is under way, the last decisions.
    ///
    /// # Errors
    /// As [`Self::join`]; [`Error::Refused`](crate::Error::Refused) where there is no such region.
    pub async fn explain_region(&self, region: RegionId) -> Result<wire::ExplainRegionResponse> {
        let request = wire::ExplainRegionRequest { region_id: region.0 };
        let call = |channel| async move { admin(channel).explain_region(request).await };
        self.core.call("explain_region", self.deadline(), call).await
    }

    /// Operators under way; with `ended` also those that ended lately. `operator`: only that one,
    /// 0 for all.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn operators(&self, operator: u64, ended: bool) -> Result<Vec<wire::OperatorStatus>> {
        let request = wire::OperatorsRequest { operator_id: operator, ended };
        let call = |channel| async move { admin(channel).operators(request).await };
        Ok(self.core.call("operators", self.deadline(), call).await?.operators)
    }

    /// Gives an operator up. What it has done already stays done.
    ///
    /// # Errors
    /// As [`Self::join`]; refused where it has ended, or must be completed.
    pub async fn cancel_operator(&self, operator: u64) -> Result<()> {
        let request = wire::CancelOperatorRequest { operator_id: operator };
        let call = |channel| async move { admin(channel).cancel_operator(request).await };
        self.core.call("cancel_operator", self.deadline(), call).await.map(|_| ())
    }

    /// Checkers and schedulers, and what each did last.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn schedulers(&self) -> Result<Vec<wire::SchedulerStatus>> {
        let request = wire::SchedulersRequest {};
        let call = |channel| async move { admin(channel).schedulers(request).await };
        Ok(self.core.call("schedulers", self.deadline(), call).await?.schedulers)
    }

    /// Pauses a scheduler, or lets it go on.
    ///
    /// # Errors
    /// As [`Self::join`]; refused where there is none of that name.
    pub async fn set_scheduler(&self, name: &str, paused: bool) -> Result<()> {
        let call = |channel| {
            let request = wire::SetSchedulerRequest { name: name.to_owned(), paused };
            async move { admin(channel).set_scheduler(request).await }
        };
        self.core.call("set_scheduler", self.deadline(), call).await.map(|_| ())
    }

    /// Lifecycles of replicas and of placement's own members.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn lifecycles(
        &self,
        request: wire::MembersRequest,
    ) -> Result<Vec<wire::MemberLifecycle>> {
        let call = |channel| async move { admin(channel).members(request).await };
        Ok(self.core.call("members", self.deadline(), call).await?.members)
    }

    /// Who would go, or stop to vote, along with what is wanted of a member: voters go in pairs.
    /// Changes nothing.
    ///
    /// # Errors
    /// As [`Self::join`]; refused by the rule that stands in the way.
    pub async fn member_partners(&self, request: wire::ChangeMemberRequest) -> Result<Vec<u64>> {
        let call = |channel| {
            let request = wire::ChangeMemberRequest { preview: true, ..request };
            async move { admin(channel).change_member(request).await }
        };
        Ok(self.core.call("change member", self.deadline(), call).await?.partner_ids)
    }

    /// Steps into a lifecycle; the operator that does what was asked, 0 where none is needed.
    ///
    /// # Errors
    /// As [`Self::join`]; refused with the rule that stands in the way.
    pub async fn change_member(&self, request: wire::ChangeMemberRequest) -> Result<u64> {
        let call = |channel| async move { admin(channel).change_member(request).await };
        Ok(self.core.call("change_member", self.deadline(), call).await?.operator_id)
    }

    /// Adds a replica to a region, removes one, or moves one; the operator that does it.
    ///
    /// # Errors
    /// As [`Self::join`]; refused with the rule that stands in the way.
    pub async fn change_replica(&self, request: wire::ChangeReplicaRequest) -> Result<u64> {
        let call = |channel| async move { admin(channel).change_replica(request).await };
        Ok(self.core.call("change_replica", self.deadline(), call).await?.operator_id)
    }

    /// Has a region taken in by a neighbour, or by the one that suits best; the operator that does
    /// it, and the neighbour.
    ///
    /// # Errors
    /// As [`Self::join`]; refused with the rule that stands in the way.
    pub async fn merge_region(
        &self,
        source: RegionId,
        into: Option<RegionId>,
    ) -> Result<(u64, RegionId)> {
        let (source_id, target_id) = (source.0, into.map_or(0, |into| into.0));
        let request = wire::MergeRegionRequest { source_id, target_id };
        let call = |channel| async move { admin(channel).merge_region(request).await };
        let begun = self.core.call("merge_region", self.deadline(), call).await?;
        Ok((begun.operator_id, RegionId(begun.target_id)))
    }

    /// Takes a store out of the cluster, or back in before it has left; how many replicas have to
    /// go elsewhere.
    ///
    /// # Errors
    /// As [`Self::join`]; refused where it could never end.
    pub async fn remove_store(&self, request: wire::RemoveStoreRequest) -> Result<u64> {
        let call = |channel| async move { admin(channel).remove_store(request).await };
        Ok(self.core.call("remove_store", self.deadline(), call).await?.replicas)
    }

    /// Replaces a store that is dead by the one that the request names: how many replicas have to go,
    /// and which of them do not go to that store, and why.
    ///
    /// # Errors
    /// As [`Self::remove_store`]; refused while the old store is alive, or the new one is not up.
    pub async fn replace_store(
        &self,
        request: wire::RemoveStoreRequest,
    ) -> Result<wire::RemoveStoreResponse> {
        let call = |channel| async move { admin(channel).remove_store(request).await };
        self.core.call("replace_store", self.deadline(), call).await
    }

    /// What happened: kept events first, then, where that was asked for, new ones as they come. The
    /// stream ends with the leader that serves it: ask again for what comes `after` the last one.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn events(&self, request: wire::EventsRequest) -> Result<Streaming<wire::Event>> {
        let call = |channel| async move { admin(channel).events(request).await };
        self.core.call("events", self.deadline(), call).await
    }

    /// The settings of the cluster that can be changed while it runs.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn settings(&self) -> Result<Vec<wire::Setting>> {
        let request = wire::SettingsRequest {};
        let call = |channel| async move { admin(channel).settings(request).await };
        Ok(self.core.call("settings", self.deadline(), call).await?.settings)
    }

    /// Changes settings, all or none; all settings as they are then.
    ///
    /// # Errors
    /// As [`Self::join`]; refused where a name is unknown or a value makes no sense.
    pub async fn change_settings(
        &self,
        changes: Vec<(String, String)>,
    ) -> Result<Vec<wire::Setting>> {
        let settings: Vec<wire::Setting> = changes
            .into_iter()
            .map(|(name, value)| wire::Setting { name, value, ..wire::Setting::default() })
            .collect();
        let call = |channel| {
            let request = wire::ChangeSettingsRequest { settings: settings.clone() };
            async move { admin(channel).change_settings(request).await }
        };
        Ok(self.core.call("change_settings", self.deadline(), call).await?.settings)
    }
}

fn admin(channel: Channel) -> AdminClient<Channel> {
    AdminClient::new(channel).max_decoding_message_size(DECODE_BYTES)
}
