//! `quorate settings list|set`: what can be changed for the whole cluster while it runs.
//!
//! The settings of one process are another matter: files, variables and flags, shown by
//! `quorate config show`.

use quorate_proto::wire::placement::Setting;
use serde_json::json;

use super::common::Common;
use crate::exit::Outcome;
use crate::output::{self, Table};

/// Settings of the cluster.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum SettingsCommand {
    /// List them with their defaults and what they mean
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Change some, all or none of them; at once and for good
    Set {
        /// Such as replicas=5
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = assignment)]
        settings: Vec<(String, String)>,
        #[command(flatten)]
        common: Common,
    },
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        Some(_) | None => Err("a setting is written as NAME=VALUE, such as replicas=5".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, or a name or a value is refused.
pub(crate) async fn settings(command: SettingsCommand) -> Outcome {
    let (settings, changed, common) = match command {
        SettingsCommand::List { common } => {
            (common.connection.placement_client().await?.settings().await?, None, common)
        }
        SettingsCommand::Set { settings, common } => {
            let placement = common.connection.placement_client().await?;
            (placement.change_settings(settings.clone()).await?, Some(settings), common)
        }
    };
    let is_meant = |setting: &&Setting| {
        changed.as_ref().is_none_or(|changed| changed.iter().any(|(name, _)| *name == setting.name))
    };
    output::emit(&table(settings.iter().filter(is_meant)).render(common.shape.format()))
}

fn table<'a>(settings: impl Iterator<Item = &'a Setting>) -> Table {
    let mut table = Table::new(&["setting", "value", "default", "meaning"]);
    for setting in settings {
        let Setting { name, value, default_value, help } = setting;
        table.push([name, value, default_value, help].map(|text| json!(text)).to_vec());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_name_and_a_value() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(assignment("replicas=5"), pair("replicas", "5"));
        assert_eq!(assignment("a.b = x=y"), pair("a.b", "x=y"));
        assert!(assignment("replicas").is_err());
        assert!(assignment("=5").is_err());
    }
}
