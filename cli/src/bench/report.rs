//! What a run says: one JSON object, or the same as a table.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::load::Measured;
use crate::output::{Format, Table, count};

/// Parts of a figure, in the order in which a person reads them.
const PARTS: [&str; 9] =
    ["mean", "p50", "p90", "p99", "p999", "max", "system", "generator", "total"];

/// A measured run with what was asked for.
pub(super) struct Report {
    /// System, workload, clients…: what was asked for, in order.
    pub(super) asked: Vec<(&'static str, Value)>,
    /// What came out.
    pub(super) measured: Measured,
}

impl Report {
    /// The report in that shape.
    pub(super) fn render(&self, format: Format) -> String {
        let fields = self.fields();
        match format {
            Format::Json => {
                let object: Map<String, Value> =
                    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                format!("{}\n", Value::Object(object))
            }
            Format::Plain | Format::Table => {
                let mut table = Table::new(&["what", "value"]);
                for (name, value) in fields {
                    match value {
                        Value::Object(parts) => {
                            let known = PARTS.iter().filter_map(|part| parts.get_key_value(*part));
                            let parts: Vec<String> =
                                known.map(|(part, value)| format!("{part} {value}")).collect();
                            table.push(vec![json!(name), json!(parts.join("  "))]);
                        }
                        other => table.push(vec![json!(name), other]),
                    }
                }
                let text = table.render(format);
                // The header says nothing here.
                match format {
                    Format::Table => text.split_once('\n').map_or("", |(_, rest)| rest).to_owned(),
                    Format::Plain | Format::Json => text,
                }
            }
        }
    }

    /// One line for a person who watches.
    pub(super) fn line(&self) -> String {
        let all = self.all();
        format!(
            "{} op/s, p50 {} µs, p99 {} µs, p99.9 {} µs",
            count(self.rate()),
            all.value_at_quantile(0.5),
            all.value_at_quantile(0.99),
            all.value_at_quantile(0.999)
        )
    }

    fn all(&self) -> Histogram<u64> {
        let mut all = self.measured.reads.clone();
        // Both have the same bounds, so that adding cannot fail.
        let _ = all.add(&self.measured.writes);
        all
    }

    fn operations(&self) -> u64 {
        self.measured.reads.len() + self.measured.writes.len()
    }

    fn rate(&self) -> f64 {
        self.operations() as f64 / self.measured.elapsed.as_secs_f64().max(1e-9)
    }

    fn fields(&self) -> Vec<(&'static str, Value)> {
        let Measured { elapsed, reads, writes, misses, errors, first_error, usage } =
            &self.measured;
        let seconds = elapsed.as_secs_f64();
        let operations = self.operations().max(1) as f64;
        let each = |micros: u64| rounded(micros as f64 / operations);
        let mut fields = self.asked.clone();
        fields.push(("seconds", rounded(seconds)));
        fields.push(("operations", json!(self.operations())));
        fields.push(("operations_per_second", json!(self.rate().round() as u64)));
        fields.push(("latency_us", latencies(&self.all())));
        if !reads.is_empty() && !writes.is_empty() {
            fields.push(("read_latency_us", latencies(reads)));
            fields.push(("write_latency_us", latencies(writes)));
        }
        fields.push((
            "cpu_us_per_operation",
            json!({
                "system": each(usage.system_micros),
                "generator": each(usage.own_micros),
                "total": each(usage.system_micros + usage.own_micros),
            }),
        ));
        let per_second = usage.syncs.map(|syncs| rounded(syncs / seconds.max(1e-9)));
        fields.push(("syncs_per_second", per_second.unwrap_or(Value::Null)));
        fields.push(("misses", json!(misses)));
        fields.push(("errors", json!(errors)));
        if let Some(words) = first_error {
            fields.push(("first_error", json!(words)));
        }
        fields
    }
}

fn rounded(number: f64) -> Value {
    json!((number * 100.0).round() / 100.0)
}

fn latencies(histogram: &Histogram<u64>) -> Value {
    json!({
        "mean": rounded(histogram.mean()),
        "p50": histogram.value_at_quantile(0.5),
        "p90": histogram.value_at_quantile(0.9),
        "p99": histogram.value_at_quantile(0.99),
        "p999": histogram.value_at_quantile(0.999),
        "max": histogram.max(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::super::usage::Usage;
    use super::*;

    fn report() -> Report {
        let histogram = || Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
        let mut writes = histogram();
        (1..=1_000).for_each(|micros| writes.record(micros).unwrap());
        Report {
            asked: vec![("system", json!("quorate"))],
            measured: Measured {
                elapsed: Duration::from_secs(2),
                reads: histogram(),
                writes,
                misses: 0,
                errors: 0,
                first_error: None,
                usage: Usage { system_micros: 30_000, own_micros: 5_000, syncs: Some(100.0) },
            },
        }
    }

    #[test]
    fn figures_are_per_operation_and_per_second() {
        let fields: Value = serde_json::from_str(&report().render(Format::Json)).unwrap();
        assert_eq!(fields["operations_per_second"], 500);
        assert_eq!(fields["cpu_us_per_operation"]["system"], 30.0);
        assert_eq!(fields["cpu_us_per_operation"]["total"], 35.0);
        assert_eq!(fields["syncs_per_second"], 50.0);
        assert_eq!(fields["latency_us"]["p50"], 500);
        assert_eq!(fields["latency_us"]["max"], 1_000);
        assert_eq!(fields["system"], "quorate");
    }

    #[test]
    fn a_person_sees_the_same_without_a_header() {
        let text = report().render(Format::Table);
        assert!(text.starts_with("system"), "{text}");
        assert!(text.contains("system 30.0  generator 5.0  total 35.0"), "{text}");
        assert!(report().line().starts_with("500 op/s, p50 500 µs"));
    }
}
