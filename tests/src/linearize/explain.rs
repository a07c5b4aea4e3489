//! A refusal in words.
//!
//! Long histories have long prefixes, and what went wrong shows at their end:
//! every list is cut to [`SHOWN`] operations, and says how many it leaves out.

use std::collections::HashSet;
use std::fmt::Write;

use super::{Model, OperationOf};

/// The most operations in one list.
const SHOWN: usize = 8;

/// Explains that `stuck` cannot follow `prefix`; both index `ops`.
pub(super) fn explain<M: Model>(
    model: &M,
    ops: &[OperationOf<M>],
    prefix: &[usize],
    stuck: usize,
) -> String {
    let mut state = model.initial();
    for &i in prefix {
        let op = &ops[i];
        state = model
            .step(&state, &op.input, op.output.as_ref())
            .expect("the search only places what the model accepts");
    }

    let mut text = format!("cannot be placed: {}\n", line(model, &ops[stuck]));
    list(&mut text, model, ops, "the longest order before it", prefix);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "leaves the state: {}", model.describe_state(&state));

    let placed: HashSet<usize> = prefix.iter().copied().collect();
    let mut open: Vec<usize> = (0..ops.len())
        .filter(|i| *i != stuck && !placed.contains(i) && ops[*i].invoke <= ops[stuck].ret)
        .collect();
    open.sort_by_key(|&i| ops[i].invoke);
    list(&mut text, model, ops, "overlapping it, and not placed", &open);
    text
}

fn list<M: Model>(
    text: &mut String,
    model: &M,
    ops: &[OperationOf<M>],
    title: &str,
    indices: &[usize],
) {
    let skipped = indices.len().saturating_sub(SHOWN);
    let _ = match (indices.len(), skipped) {
        (0, _) => writeln!(text, "{title}: none"),
        (all, 0) => writeln!(text, "{title} ({all}):"),
        (all, _) => writeln!(text, "{title} (the last {SHOWN} of {all}):"),
    };
    for &i in &indices[skipped..] {
        let _ = writeln!(text, "  {}", line(model, &ops[i]));
    }
}

fn line<M: Model>(model: &M, op: &OperationOf<M>) -> String {
    let what = model.describe(&op.input, op.output.as_ref());
    match op.output {
        Some(_) => format!("[{}..{}] client {}: {what}", op.invoke, op.ret, op.client),
        None => format!("[{}..] client {}: {what}", op.invoke, op.client),
    }
}
