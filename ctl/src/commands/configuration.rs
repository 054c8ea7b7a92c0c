//! `configuration …`: shows and deletes the hub's automatic device configurations.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use crate::cli::{ConfigurationArgs, ConfigurationDeleteArgs};
use crate::hub::HubClient;
use crate::output::{Output, cell};
use crate::prompt::confirm;
use crate::times;

/// Lists the configurations.
pub async fn list(hub: &HubClient, output: Output) -> anyhow::Result<()> {
    let all = hub.configurations().all().await.context("the configurations")?;
    if !output.is_tabular() {
        return Ok(output.array(&all)?);
    }
    let local = times::local();
    let local = |text: &str| if output.is_text() { local(text) } else { text.to_owned() };
    let row = |one: &Value| {
        let at = |pointer: &str| local(&cell(one.pointer(pointer)));
        let of = |count: &str| at(&format!("/systemMetrics/results/{count}"));
        vec![
            at("/id"),
            at("/priority"),
            of("targetedCount"),
            of("appliedCount"),
            at("/createdTimeUtc"),
            at("/targetCondition"),
        ]
    };
    let header = ["CONFIGURATION", "PRIORITY", "TARGETED", "APPLIED", "CREATED", "CONDITION"];
    Ok(output.table(&header, &all.iter().map(row).collect::<Vec<_>>())?)
}

/// Shows a configuration.
pub async fn show(hub: &HubClient, output: Output, args: ConfigurationArgs) -> anyhow::Result<()> {
    let ConfigurationArgs { name } = args;
    let shown = hub.configuration(&name).await.with_context(|| format!("configuration {name}"))?;
    if !output.is_text() {
        return Ok(output.json(&shown)?);
    }
    let keys = ["id", "targetCondition", "priority", "createdTimeUtc", "lastUpdatedTimeUtc", "content"];
    let there = keys.into_iter().filter(|key| shown.get(*key).is_some_and(|value| !value.is_null()));
    let local = times::local();
    let mut rows: Vec<_> = there.map(|key| vec![key.to_owned(), local(&cell(shown.get(key)))]).collect();
    for metrics in ["systemMetrics", "metrics"] {
        let none = Map::new();
        let results = shown.get(metrics).and_then(|metrics| metrics.get("results")?.as_object());
        let results = results.unwrap_or(&none).iter();
        rows.extend(results.map(|(name, count)| vec![name.clone(), cell(Some(count))]));
    }
    Ok(output.table(&[], &rows)?)
}

/// Deletes a configuration.
pub async fn delete(hub: &HubClient, output: Output, args: ConfigurationDeleteArgs) -> anyhow::Result<()> {
    let ConfigurationDeleteArgs { name, yes } = args;
    let question = format!(
        "Delete configuration {name} from hub {}, and what it has set in the twins of devices?",
        hub.endpoint()
    );
    if !yes && !confirm(&format!("configuration delete {name}"), question).await? {
        bail!("nothing deleted");
    }
    hub.delete_configuration(&name).await.with_context(|| format!("configuration {name}"))?;
    if output.is_text() {
        output.line(format_args!("deleted {name}"))?;
    }
    Ok(())
}
