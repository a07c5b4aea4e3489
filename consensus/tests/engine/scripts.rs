//! Golden scripts: the text files beside this one, run on both engines.
//!
//! A line is a command, a line that begins with `=` is what the command before it answers, `#`
//! begins a comment. A byte that is not printable is written `\xNN`, an empty key `-`.
//!
//! ```text
//! write put CF KEY VALUE; delete CF KEY; clear CF START END     one batch (write-synced: durable)
//! sync · restart · get CF KEY · multi-get CF KEY… · size CF START END
//! scan CF START END [reverse] [LIMIT]
//! snapshot NAME · release NAME · @NAME get … · @NAME multi-get … · @NAME scan …
//! stage NAME KEY=VALUE… · abandon NAME KEY=VALUE… · staged · discard NAME · ingest NAME START END
//! begin NAME NOTE KEY=VALUE… · go-on NAME NOTE KEY=VALUE…       up to a checkpoint; what was noted
//! complete NAME KEY=VALUE… · unfinished · prepare NAME
//! ```

use std::collections::BTreeMap;

use quorate_consensus::engine::{
    Cf, Direction, EngineError, Reader, Stage, StagedFile, WriteBatch,
};

use crate::subject::{Subject, collect};

macro_rules! scripts {
    ($($name:ident),+ $(,)?) => {$(
        #[test]
        fn $name() {
            let script = include_str!(concat!(stringify!($name), ".txt"));
            run(stringify!($name), script, Subject::memory());
            run(stringify!($name), script, Subject::rocks());
        }
    )+};
}

scripts!(
    reads_and_writes,
    scans_in_both_directions,
    a_batch_is_applied_in_order_and_whole,
    snapshots_do_not_move,
    staged_files_are_ingested,
    staged_files_are_gone_on_with,
    a_restart_keeps_everything,
);

fn run(name: &str, script: &str, subject: Subject) {
    let mut runner = Runner { subject, snapshots: BTreeMap::new() };
    let mut lines = script.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut expected = Vec::new();
        while let Some((_, answer)) = lines.next_if(|(_, line)| line.starts_with('=')) {
            expected.push(answer[1..].trim().to_owned());
        }
        let answer = runner.execute(line).unwrap_or_else(|error| vec![format!("error: {error}")]);
        let engine = runner.subject.name();
        assert_eq!(answer, expected, "{name}.txt:{}: `{line}` on the {engine} engine", at + 1);
    }
}

struct Runner {
    subject: Subject,
    snapshots: BTreeMap<String, Box<dyn Reader + Send>>,
}

impl Runner {
    fn execute(&mut self, line: &str) -> Result<Vec<String>, EngineError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some(name) = words[0].strip_prefix('@') {
            return read(self.snapshots[name].as_ref(), &words[1..]);
        }
        let engine = self.subject.engine();
        match words.as_slice() {
            ["write", ..] => engine.write(batch(&line["write".len()..]))?,
            ["write-synced", ..] => engine.write_synced(batch(&line["write-synced".len()..]))?,
            ["sync"] => engine.sync()?,
            ["restart"] => {
                drop(engine);
                self.snapshots.clear();
                self.subject.restart();
            }
            ["snapshot", name] => {
                self.snapshots.insert((*name).to_owned(), engine.snapshot());
            }
            ["release", name] => drop(self.snapshots.remove(*name)),
            ["size", cf, start, end] => {
                let size = engine.approximate_size(family(cf), &bytes(start), &bytes(end))?;
                return Ok(vec![size.to_string()]);
            }
            [command @ ("stage" | "abandon"), name, entries @ ..] => {
                let mut stage = engine.stage(name)?;
                put(stage.as_mut(), entries)?;
                if *command == "stage" {
                    return Ok(vec![shown(&stage.finish()?)]);
                }
            }
            ["begin", name, note, entries @ ..] => {
                let mut stage = engine.stage(name)?;
                put(stage.as_mut(), entries)?;
                stage.checkpoint(note.as_bytes())?;
            }
            ["go-on", name, note, entries @ ..] => {
                let Some((mut stage, before)) = engine.resume_stage(name)? else {
                    return Ok(vec!["nothing to go on with".to_owned()]);
                };
                put(stage.as_mut(), entries)?;
                stage.checkpoint(note.as_bytes())?;
                return Ok(vec![before.escape_ascii().to_string()]);
            }
            ["complete", name, entries @ ..] => {
                let (mut stage, _) = engine.resume_stage(name)?.unwrap();
                put(stage.as_mut(), entries)?;
                return Ok(vec![shown(&stage.finish()?)]);
            }
            ["unfinished"] => {
                let found = engine.unfinished()?.into_iter();
                let found = found.map(|(name, note)| format!("{name}:{}", note.escape_ascii()));
                return Ok(vec![found.collect::<Vec<_>>().join(" ")]);
            }
            ["prepare", name] => engine.prepare_ingest(name)?,
            ["staged"] => return Ok(vec![engine.staged()?.join(" ")]),
            ["discard", name] => engine.discard_staged(name)?,
            ["ingest", name, start, end] => engine.ingest(name, &bytes(start), &bytes(end))?,
            _ => return read(engine.as_ref(), &words),
        }
        Ok(Vec::new())
    }
}

fn put(stage: &mut dyn Stage, entries: &[&str]) -> Result<(), EngineError> {
    for entry in entries {
        let (key, value) = entry.split_once('=').unwrap();
        stage.put(&bytes(key), value.as_bytes())?;
    }
    Ok(())
}

fn shown(file: &StagedFile) -> String {
    format!("{}: {} entries, {} bytes", file.name, file.entries, file.bytes)
}

fn read(reader: &dyn Reader, words: &[&str]) -> Result<Vec<String>, EngineError> {
    let shown = |value: &bytes::Bytes| value.escape_ascii().to_string();
    match words {
        ["get", cf, wanted] => {
            let value = reader.get(family(cf), &bytes(wanted))?;
            Ok(vec![value.as_ref().map_or("none".to_owned(), shown)])
        }
        ["multi-get", cf, keys @ ..] => {
            let keys: Vec<Vec<u8>> = keys.iter().map(|word| bytes(word)).collect();
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let values = reader.multi_get(family(cf), &keys)?;
            let values: Vec<_> = values
                .iter()
                .map(|value| value.as_ref().map_or("none".to_owned(), shown))
                .collect();
            Ok(vec![values.join(" ")])
        }
        ["scan", cf, start, end, rest @ ..] => {
            let (direction, rest) = match rest {
                ["reverse", rest @ ..] => (Direction::Reverse, rest),
                rest => (Direction::Forward, rest),
            };
            let limit = rest.first().map_or(usize::MAX, |limit| limit.parse().unwrap());
            let (start, end) = (bytes(start), bytes(end));
            let entries = collect(reader, family(cf), (&start, &end), direction, limit);
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{}={}", shown(key), shown(value)))
                .collect();
            Ok(vec![entries.join(" ")])
        }
        _ => panic!("unknown command {words:?}"),
    }
}

fn batch(text: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for op in text.split(';').filter(|op| !op.trim().is_empty()) {
        match op.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["put", cf, key, value] => batch.put(family(cf), bytes(key), bytes(value)),
            ["delete", cf, key] => batch.delete(family(cf), bytes(key)),
            ["clear", cf, start, end] => batch.delete_range(family(cf), bytes(start), bytes(end)),
            other => panic!("unknown change {other:?}"),
        }
    }
    batch
}

fn family(name: &str) -> Cf {
    Cf::ALL.into_iter().find(|cf| cf.name() == name).unwrap()
}

/// `-` is empty, `\xNN` a byte.
fn bytes(word: &str) -> Vec<u8> {
    if word == "-" {
        return Vec::new();
    }
    let (mut bytes, mut rest) = (Vec::new(), word);
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        bytes.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap());
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
