//! Nodes by a service of AWS Cloud Map, in which ECS registers the tasks of a service by itself.

use std::collections::HashMap;
use std::env;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_servicediscovery::Client;
use aws_sdk_servicediscovery::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_servicediscovery::config::{Builder, ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_servicediscovery::error::{BoxError, DisplayErrorContext};
use aws_sdk_servicediscovery::types::HealthStatusFilter;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use tokio::sync::OnceCell;

/// Attributes of an instance, as Cloud Map and ECS name them.
const IPV4: &str = "AWS_INSTANCE_IPV4";
const IPV6: &str = "AWS_INSTANCE_IPV6";
const PORT: &str = "AWS_INSTANCE_PORT";
/// One of our own, for services whose port is another one.
const PEER_PORT: &str = "FOREBAY_PEER_PORT";

/// The most that Cloud Map tells at a time, which is more than a cluster has.
const MOST_INSTANCES: i32 = 1000;

/// A service whose instances are the nodes of a cluster.
pub(super) struct CloudMap {
    namespace: String,
    service: String,
    /// The peer port of instances that say none.
    port: u16,
    /// Made by the first look-up: the credentials and the region may have to be asked for.
    client: OnceCell<Client>,
}

impl CloudMap {
    pub(super) fn new(namespace: &str, service: &str, port: u16) -> CloudMap {
        CloudMap { namespace: namespace.to_owned(), service: service.to_owned(), port, client: OnceCell::new() }
    }

    /// The peer ports, as `host:port`, of the healthy instances, or of all if none is.
    pub(super) async fn look_up(&self) -> Result<Vec<String>, String> {
        let found = self
            .client
            .get_or_init(client)
            .await
            .discover_instances()
            .namespace_name(&self.namespace)
            .service_name(&self.service)
            .health_status(HealthStatusFilter::HealthyOrElseAll)
            .max_results(MOST_INSTANCES)
            .send()
            .await
            .map_err(|error| DisplayErrorContext(error).to_string())?;
        let attributes = found.instances().iter().filter_map(|instance| instance.attributes());
        Ok(attributes.filter_map(|attributes| address(attributes, self.port)).collect())
    }
}

fn address(attributes: &HashMap<String, String>, port: u16) -> Option<String> {
    let port = [PEER_PORT, PORT].iter().find_map(|name| attributes.get(*name)?.parse().ok()).unwrap_or(port);
    match (attributes.get(IPV4), attributes.get(IPV6)) {
        _ if port == 0 => None,
        (None, None) => None,
        (Some(host), _) | (None, Some(host)) => Some(crate::topology::address(host, port)),
    }
}

/// With the region and the credentials that AWS' own tools would take: of the environment, a profile, the ECS task, or the machine.
async fn client() -> Client {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
    let mut builder = Builder::from(&config);
    if is_elsewhere(&config) {
        builder = builder.interceptor(HostAsGiven);
    }
    Client::from_conf(builder.build())
}

/// Whether another endpoint than AWS' own was given.
fn is_elsewhere(config: &SdkConfig) -> bool {
    config.endpoint_url().is_some() || env::var_os("AWS_ENDPOINT_URL_SERVICEDISCOVERY").is_some()
}

/// The SDK asks for instances at another host than for all else, `data-` and the endpoint's; a host that was given means itself.
#[derive(Debug)]
struct HostAsGiven;

impl Intercept for HostAsGiven {
    fn name(&self) -> &'static str {
        "HostAsGiven"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        let uri = request.uri().replacen("://data-", "://", 1);
        request.set_uri(uri)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(attributes: &[(&str, &str)]) -> Option<String> {
        address(&attributes.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(), 8001)
    }

    #[test]
    fn an_instance_has_an_address_and_perhaps_a_port() {
        let at = |address: &str| Some(address.to_owned());
        assert_eq!(instance(&[(IPV4, "10.0.0.1")]), at("10.0.0.1:8001"));
        assert_eq!(instance(&[(IPV4, "10.0.0.1"), (PORT, "9001")]), at("10.0.0.1:9001"));
        assert_eq!(instance(&[(IPV4, "10.0.0.1"), (PORT, "6379"), (PEER_PORT, "9002")]), at("10.0.0.1:9002"));
        assert_eq!(instance(&[(IPV6, "2001:db8::1")]), at("[2001:db8::1]:8001"));
        assert_eq!(instance(&[("AWS_INSTANCE_CNAME", "forebay.internal")]), None);
    }
}
