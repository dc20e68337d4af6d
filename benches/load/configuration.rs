//! Configuration of the other servers: limits against floods off, clear text, no accounts looked up elsewhere.

use std::fs;
use std::path::Path;

use crate::dialect::messenger::{PASSWORD, user};

pub fn ngircd(port: u16) -> String {
    format!(
        "[Global]
Name = irc.load.test
Info = load
Listen = 127.0.0.1
Ports = {port}
MotdPhrase = load
ServerUID = root
ServerGID = root
[Limits]
MaxConnections = 0
MaxConnectionsIP = 0
MaxJoins = 0
MaxNickLength = 16
MaxPenaltyTime = 0
PingTimeout = 600
[Options]
DNS = no
Ident = no
PAM = no
"
    )
}

pub fn inspircd(port: u16, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"<server name="irc.load.test" description="load" network="load">
<admin name="load" nick="load" email="load@load.test">
<bind address="127.0.0.1" port="{port}" type="clients">
<connect allow="*" timeout="60" pingfreq="600" hardsendq="1000000000" softsendq="1000000000" recvq="10000000"
 threshold="1000000000" commandrate="1000000000" fakelag="no" localmax="100000" globalmax="100000" limit="100000"
 maxconnwarn="no" maxchans="20" resolvehostnames="no" useident="no">
<performance softlimit="100000" somaxconn="4096" netbuffersize="65534" quietbursts="yes">
<limits maxnick="16">
<log method="file" type="* -USERINPUT -USEROUTPUT" level="default" target="{directory}/inspircd.log">
<pid file="{directory}/inspircd.pid">
"#
    )
}

pub fn redis(port: u16) -> String {
    format!(
        "port {port}
bind 127.0.0.1
protected-mode no
maxclients 19900
save \"\"
appendonly no
client-output-buffer-limit pubsub 0 0 0
client-output-buffer-limit normal 0 0 0
tcp-backlog 4096
"
    )
}

pub fn mosquitto(port: u16) -> String {
    format!(
        "listener {port} 127.0.0.1
allow_anonymous true
persistence false
set_tcp_nodelay true
max_queued_messages 0
max_queued_bytes 0
log_type error
log_dest stderr
user root
"
    )
}

/// With a directory, JetStream keeps its streams there and syncs each message before it is answered.
pub fn nats(port: u16, stream_directory: Option<&Path>) -> String {
    let stream = stream_directory.map_or_else(String::new, |directory| {
        format!(
            "jetstream {{\n  store_dir: \"{}\"\n  sync_interval: always\n  max_file_store: 20GB\n}}\n",
            directory.join("streams").display()
        )
    });
    format!(
        "listen: 127.0.0.1:{port}
max_connections: 100000
max_pending: 1GB
write_deadline: \"60s\"
ping_interval: \"600s\"
{stream}"
    )
}

pub fn prosody(port: u16, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"run_as_root = true
pidfile = "{directory}/prosody.pid"
data_path = "{directory}/accounts"
log = {{ warn = "*console" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
s2s_ports = {{}}
modules_enabled = {{ "saslauth" }}
modules_disabled = {{ "s2s", "tls", "offline" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
network_settings = {{ read_size = 65536, tcp_backlog = 1024, read_timeout = 600 }}
VirtualHost "localhost"
Component "conference.localhost" "muc"
    restrict_room_creation = false
    muc_room_locking = false
"#
    )
}

/// A file for each account, as Prosody keeps them.
pub fn prosody_accounts(directory: &Path, users: usize) -> anyhow::Result<()> {
    let accounts = directory.join("accounts/localhost/accounts");
    fs::create_dir_all(&accounts)?;
    for number in 0..users {
        fs::write(
            accounts.join(format!("{}.dat", user(number))),
            format!("return {{ [\"password\"] = \"{PASSWORD}\"; }};\n"),
        )?;
    }
    Ok(())
}
