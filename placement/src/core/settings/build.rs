//! From settings to what planning needs.

use super::{BadSetting, LEVELS, ON, RULES, Settings};
use crate::core::labels::Levels;
use crate::core::limit::LimitRates;
use crate::core::policy::{HotSettings, MergeSettings, Policy, Tolerances};
use crate::core::rule::RuleSet;

impl Settings {
    /// What the cluster wants, with that many voters where no rule speaks of them.
    ///
    /// # Errors
    /// Rules or levels that cannot be.
    pub fn policy(&self, replicas: u32) -> Result<Policy, BadSetting> {
        let conflict = |words: String| BadSetting::Conflict(words);
        let part = |name| self.number(name) as f64 / 100.0;
        Ok(Policy {
            rules: RuleSet::parse(self.text(RULES), replicas)
                .map_err(|error| conflict(format!("{RULES}: {error}")))?,
            levels: Levels::parse(self.text(LEVELS))
                .map_err(|error| conflict(format!("{LEVELS}: {error}")))?,
            balance: Tolerances {
                leaders: part("balance.leaders_percent"),
                replicas: part("balance.replicas_percent"),
                bytes: part("balance.bytes_percent"),
                ..Tolerances::default()
            },
            hot: HotSettings { share: part("hot.share_percent"), ..HotSettings::default() },
            merge: MergeSettings {
                enabled: self.text("merge.enabled") == ON,
                max_bytes: self.number("merge.max_bytes"),
                max_keys: self.number("merge.max_keys"),
                min_age_ms: self.number("merge.min_age_ms"),
                at_once: usize::try_from(self.number("merge.at_once")).unwrap_or(usize::MAX),
            },
            min_free: part("store_limit.free_percent"),
        })
    }

    /// How much a store may be burdened with.
    pub fn limit_rates(&self) -> LimitRates {
        let number = |name| self.number(name);
        LimitRates {
            additions: number("store_limit.additions") as f64,
            removals: number("store_limit.removals") as f64,
            snapshots: u32::try_from(number("store_limit.snapshots")).unwrap_or(u32::MAX),
            arriving: usize::try_from(number("store_limit.arriving")).unwrap_or(usize::MAX),
        }
    }
}
