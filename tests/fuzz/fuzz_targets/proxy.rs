//! What answers a CONNECT, and how a proxy is written down.

#![no_main]

use iotdm_agentd::connection::proxy::Proxy;
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Builder;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Proxy>().map(|proxy| proxy.to_string());
    }
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(bytes.len() + 4096);
        theirs.write_all(bytes).await.unwrap();
        theirs.shutdown().await.unwrap();
        let proxy: Proxy = "http://u:p@proxy:3128".parse().unwrap();
        let _ = proxy.tunnel(ours, "hub", 8883).await;
    });
});
