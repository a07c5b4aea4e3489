//! `quorate kv scan`: pairs in the order of their keys, page by page.

use bytes::Bytes;
use quorate_client::{Client, KvPair};
use quorate_proto::key;
use serde_json::json;

use super::written;
use crate::cluster::find::Connection;
use crate::exit::Outcome;
use crate::output::{self, Format, Table};

/// Pairs read at once.
const PAGE: usize = 1024;

/// Lists pairs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ScanArgs {
    /// First key; empty or absent: from the first key there is
    start: Option<String>,
    /// First key beyond; empty or absent: to the last key there is
    end: Option<String>,
    /// Keys that begin with this, instead of START and END
    #[arg(long, conflicts_with_all = ["start", "end"])]
    prefix: Option<String>,
    /// Most pairs
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    /// Everything, however much it is
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Largest key first
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    from: super::from::From,
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// Bad input, or a scan that failed.
pub(super) async fn scan(args: ScanArgs) -> Outcome {
    let (mut start, mut end) = match &args.prefix {
        Some(prefix) => {
            let prefix = written(prefix, "prefix")?;
            let end = after_prefix(&prefix);
            (prefix, end)
        }
        None => (
            written(args.start.as_deref().unwrap_or(""), "start")?,
            written(args.end.as_deref().unwrap_or(""), "end")?,
        ),
    };
    let client = args.connection.client().await?;
    let mut pages = Pages::new(args.shape.format());
    let mut left = if args.all { usize::MAX } else { args.limit };
    while left > 0 {
        let wanted = left.min(PAGE);
        let page = read(&client, &start, &end, wanted, &args).await?;
        let Some((last, _)) = page.last() else { break };
        // The next page begins right behind the last key of this one.
        if args.reverse {
            end = last.clone();
        } else {
            start = [last.as_ref(), &[0]].concat().into();
        }
        left -= page.len();
        let complete = page.len() < wanted;
        output::emit(&pages.show(&page))?;
        if complete || (!end.is_empty() && start >= end) {
            break;
        }
    }
    output::emit(&pages.end())
}

async fn read(
    client: &Client,
    start: &Bytes,
    end: &Bytes,
    limit: usize,
    args: &ScanArgs,
) -> Outcome<Vec<KvPair>> {
    let (start, end, from) = (start.clone(), end.clone(), args.from.options());
    Ok(if args.reverse {
        client.reverse_scan_with(start, end, limit, from).await?
    } else {
        client.scan_with(start, end, limit, from).await?
    })
}

/// The first key behind all keys with that prefix; empty where there is none.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end.into()
}

/// Pages as they come: memory stays bounded however long the list is.
struct Pages {
    format: Format,
    shown: usize,
}

impl Pages {
    fn new(format: Format) -> Self {
        Self { format, shown: 0 }
    }

    fn show(&mut self, page: &[KvPair]) -> String {
        let first = self.shown == 0;
        self.shown += page.len();
        let pairs = page.iter().map(|(key, value)| (key::display(key), key::display(value)));
        match self.format {
            Format::Plain => pairs.map(|(key, value)| format!("{key}\t{value}\n")).collect(),
            Format::Json => {
                let objects =
                    pairs.map(|(key, value)| json!({"key": key, "value": value}).to_string());
                let page = objects.collect::<Vec<_>>().join(",\n");
                format!("{}{page}", if first { "[" } else { ",\n" })
            }
            Format::Table => {
                let mut table = Table::new(&["key", "value"]);
                pairs.for_each(|(key, value)| table.push(vec![json!(key), json!(value)]));
                let text = table.render(Format::Table);
                if first {
                    text
                } else {
                    text.split_once('\n').map_or("", |(_, rest)| rest).to_owned()
                }
            }
        }
    }

    fn end(&self) -> String {
        match self.format {
            Format::Json if self.shown == 0 => "[]\n".to_owned(),
            Format::Json => "]\n".to_owned(),
            Format::Plain | Format::Table => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn page(keys: &[&str]) -> Vec<KvPair> {
        keys.iter().map(|key| (Bytes::from((*key).to_owned()), Bytes::from("v\t"))).collect()
    }

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(after_prefix(b"ab"), Bytes::from("ac"));
        assert_eq!(after_prefix(b"a\xff\xff"), Bytes::from("b"));
        assert_eq!(after_prefix(b"\xff"), Bytes::new());
        assert_eq!(after_prefix(b""), Bytes::new());
    }

    #[test]
    fn pages_join_into_one_document() {
        let mut pages = Pages::new(Format::Json);
        let text = pages.show(&page(&["a", "b"])) + &pages.show(&page(&["c"])) + &pages.end();
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed.as_array().unwrap().len(), 3);
        assert_eq!(parsed[2], json!({"key": "c", "value": "v\\x09"}));
        assert_eq!(Pages::new(Format::Json).end(), "[]\n");

        let mut pages = Pages::new(Format::Plain);
        assert_eq!(pages.show(&page(&["a"])) + &pages.end(), "a\tv\\x09\n");

        let mut pages = Pages::new(Format::Table);
        let text = pages.show(&page(&["a"])) + &pages.show(&page(&["b"]));
        assert_eq!(text, "KEY  VALUE\na    v\\x09\nb    v\\x09\n");
    }
}
