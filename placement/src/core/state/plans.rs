//! What a leader has planned, and what people have set.

use quorate_consensus::engine::WriteBatch;
use quorate_proto::PeerId;

use super::State;
use crate::core::command::{CLUSTER_VERSION, Plan};
use crate::core::record::{self, Record};
use crate::core::settings::{BadSetting, CLUSTER_VERSION_NAME, REPLICAS, Settings};

impl State {
    pub(super) fn save_plan(&mut self, plan: Plan, batch: &mut WriteBatch) {
        let Plan { operators, ended, lifecycles, events, notes } = plan;
        for operator in operators {
            Record::Operator(operator.clone()).put(batch);
            self.operators.insert(operator.id, operator);
        }
        for id in ended {
            if self.operators.remove(&id).is_some() {
                record::delete_operator(batch, id);
            }
        }
        for (region, mut records) in lifecycles {
            for record in &mut records {
                if record.peer == PeerId(0) {
                    // The one that a lost answer was about, or a new one.
                    let known = self.lifecycles.get(&region).and_then(|known| {
                        known.iter().find(|known| {
                            known.node == record.node && known.joined_ms == record.joined_ms
                        })
                    });
                    record.peer = match known {
                        Some(known) => known.peer,
                        None => PeerId(self.take_ids(1, batch)),
                    };
                }
            }
            if records.is_empty() {
                self.lifecycles.remove(&region);
                record::delete_lifecycle(batch, region);
            } else {
                Record::Lifecycle(region, records.clone()).put(batch);
                self.lifecycles.insert(region, records);
            }
        }
        let (added, dropped) = self.events.take(events);
        for event in added {
            Record::Event(event).put(batch);
        }
        for sequence in dropped {
            record::delete_event(batch, sequence);
        }
        let (added, dropped) = self.ended.take(notes);
        for (number, ended) in added {
            Record::Ended(number, ended).put(batch);
        }
        for number in dropped {
            record::delete_ended(batch, number);
        }
        self.plans_generation += 1;
    }

    /// Whether settings can be changed so.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check_settings(&self, changes: &[(String, String)]) -> Result<(), BadSetting> {
        let replicas = self.cluster.map_or(3, |cluster| cluster.replicas);
        self.settings.check(changes, replicas)?;
        let now = self.cluster.map_or(CLUSTER_VERSION, |cluster| cluster.version);
        for (name, value) in changes {
            let falls = value.parse::<u32>().is_ok_and(|value| value < now);
            if name == CLUSTER_VERSION_NAME && falls {
                return Err(BadSetting::Falls { now });
            }
        }
        Ok(())
    }

    /// Replicas and version are the cluster's own; the rest lies together.
    pub(super) fn change_settings(
        &mut self,
        changes: &[(String, String)],
        batch: &mut WriteBatch,
    ) -> Result<(), BadSetting> {
        self.check_settings(changes)?;
        let mut others = Vec::new();
        for (name, value) in changes {
            match (name.as_str(), value.parse::<u32>(), &mut self.cluster) {
                (REPLICAS, Ok(value), Some(cluster)) => cluster.replicas = value,
                (CLUSTER_VERSION_NAME, Ok(value), Some(cluster)) => cluster.version = value,
                _ => others.push((name.clone(), value.clone())),
            }
        }
        if let Some(cluster) = self.cluster {
            Record::Cluster(cluster).put(batch);
        }
        if !others.is_empty() {
            self.settings.change(&others);
            Record::Settings(self.settings.clone()).put(batch);
        }
        Ok(())
    }

    /// All settings with their values now.
    pub fn all_settings(&self) -> Vec<(&'static crate::core::settings::Known, String)> {
        let value = |known: &'static crate::core::settings::Known| {
            let cluster = self.cluster.as_ref();
            let value = match known.name {
                REPLICAS => cluster.map(|cluster| cluster.replicas.to_string()),
                CLUSTER_VERSION_NAME => cluster.map(|cluster| cluster.version.to_string()),
                name => Some(Settings::text(&self.settings, name).to_owned()),
            };
            (known, value.unwrap_or_else(|| known.default.to_owned()))
        };
        crate::core::settings::KNOWN.iter().map(value).collect()
    }
}
