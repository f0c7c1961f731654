//! One simulation: builds the hosts of a plan, lets go wrong what is to, and closes the ledger.

use super::attacker::attacker;
use super::clock::Clock;
use super::disk::Disk;
use super::gate::open;
use super::hosts::{ATTACKER, World, broker, device, gateway, name, registry};
use super::ledger::{Ledger, key_of};
use super::plan::{Attacker, END, FAULTS_UNTIL, Fault, Host, Plan, Sabotage, TICK};
use anyhow::{Context, Result, anyhow};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};
use turmoil::Sim;

/// What one seed led to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) counts: BTreeMap<String, u64>,
    pub(super) violations: Vec<String>,
    /// Hash over everything that happened, in order.
    pub(super) trace: u64,
}

/// Runs one seed. `folder` is for the devices' sequence files, and must be empty.
pub(super) fn run(seed: u64, sabotage: Option<Sabotage>, folder: &Path, shown: bool) -> Result<Outcome> {
    let plan = Arc::new(Plan::of(seed, sabotage));
    if shown {
        anstream::println!("{plan:#?}");
    }
    let world = World {
        registry: Arc::new(registry(&plan)?),
        disk: Disk::new(sabotage),
        gateway_clock: Clock::default(),
        device_clocks: plan.devices.iter().map(|_| Clock::default()).collect(),
        ledger: Arc::new(Mutex::new(Ledger::new(&plan, shown))),
        folder: Arc::new(folder.to_owned()),
        plan: Arc::clone(&plan),
    };
    for (clock, device) in world.device_clocks.iter().zip(&plan.devices) {
        clock.set(device.offset_us, device.drift_ppm);
    }
    let mut sim = build(&world);
    let mut random = StdRng::seed_from_u64(seed ^ 0xD15C);
    let mut faults = plan.faults.iter().peekable();
    let mut healed = false;
    while sim.elapsed() < END {
        while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= sim.elapsed()) {
            open(&world.ledger).note(sim.elapsed(), "fault", fault);
            happen(&mut sim, &world, fault, &mut random);
        }
        if !healed && sim.elapsed() >= FAULTS_UNTIL {
            healed = true;
            heal(&mut sim, &world);
        }
        sim.step()
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("a host of seed {seed} ended at {:?}", sim.elapsed()))?;
    }
    let mut ledger = open(&world.ledger);
    ledger.close(sim.elapsed(), world.disk.floor(), &world.disk.readings());
    Ok(Outcome {
        counts: std::mem::take(&mut ledger.counts),
        violations: std::mem::take(&mut ledger.violations),
        trace: ledger.trace(),
    })
}

fn build(world: &World) -> Sim<'static> {
    let plan = &world.plan;
    let mut sim = turmoil::Builder::new()
        .rng_seed(plan.seed)
        .epoch(UNIX_EPOCH)
        .tick_duration(TICK)
        .simulation_duration(END * 2)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(plan.slowest_message)
        .tcp_capacity(1_024)
        .enable_random_order()
        .build();
    for host in plan.hosts() {
        let world = world.clone();
        match host {
            Host::Gateway => sim.host(name(host), move || gateway(world.clone())),
            Host::Broker => sim.host(name(host), move || broker(world.clone())),
            Host::Device(index) => sim.host(name(host), move || device(world.clone(), index)),
        }
    }
    if plan.attacker != Attacker::Nobody {
        let world = world.clone();
        sim.host(ATTACKER, move || attacker(world.clone()));
    }
    sim
}

fn happen(sim: &mut Sim<'_>, world: &World, fault: &Fault, random: &mut StdRng) {
    match *fault {
        Fault::Crash(host) => {
            sim.crash(name(host));
            let at = sim.elapsed();
            let mut ledger = open(&world.ledger);
            ledger.crashed(host, at);
            if host == Host::Gateway {
                for message in world.disk.crash(random.random_bool(0.5)) {
                    if let Some(key) = key_of(&message) {
                        ledger.durable(key, &message, at);
                    }
                }
            }
        }
        Fault::Start(host) => sim.bounce(name(host)),
        Fault::Cut(a, b) => sim.partition(name(a), name(b)),
        Fault::CutOneWay(a, b) => sim.partition_oneway(name(a), name(b)),
        Fault::Hold(a, b) => sim.hold(name(a), name(b)),
        Fault::Release(a, b) => sim.release(name(a), name(b)),
        Fault::Mend(a, b) => sim.repair(name(a), name(b)),
        Fault::Lose(a, b, rate) => {
            sim.set_link_fail_rate(name(a), name(b), rate);
            if rate == 0.0 {
                sim.repair(name(a), name(b));
            }
        }
        Fault::DiskFull(full) => world.disk.set_full(full),
        Fault::GatewayClock(offset_us) => world.gateway_clock.set(offset_us, 0),
    }
    if !matches!(fault, Fault::Crash(_) | Fault::Start(_)) {
        open(&world.ledger).count(kind(fault));
    }
}

fn kind(fault: &Fault) -> &'static str {
    match fault {
        Fault::Crash(_) => "crashes",
        Fault::Start(_) => "starts",
        Fault::Cut(..) | Fault::CutOneWay(..) => "network: partitions",
        Fault::Hold(..) => "network: messages held back",
        Fault::Release(..) => "network: held messages released",
        Fault::Mend(..) => "network: partitions mended",
        Fault::Lose(..) => "network: changes of the loss rate",
        Fault::DiskFull(_) => "disk full, and free again",
        Fault::GatewayClock(_) => "jumps of the gateway's clock",
    }
}

/// Everything works from now on, and all clocks are right.
fn heal(sim: &mut Sim<'_>, world: &World) {
    let at = sim.elapsed();
    open(&world.ledger).note(at, "healed", &());
    world.gateway_clock.set(0, 0);
    for clock in world.device_clocks.iter() {
        clock.set(0, 0);
    }
    world.disk.set_full(false);
    for (a, b) in world.plan.links() {
        sim.set_link_fail_rate(name(a), name(b), 0.0);
        sim.repair(name(a), name(b));
    }
    for host in world.plan.hosts() {
        if !sim.is_host_running(name(host)) {
            sim.bounce(name(host));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn violations(seed: u64, sabotage: Option<Sabotage>) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        run(seed, sabotage, folder.path(), false).unwrap().violations
    }

    #[test]
    fn sound_gateway_passes_and_each_way_to_break_it_is_noticed() {
        // Those first that notice most.
        let seeds = [8, 4, 2, 1, 3, 5, 6];
        for seed in [4, 2] {
            assert_eq!(violations(seed, None), [] as [String; 0], "seed {seed}");
        }
        for sabotage in Sabotage::value_variants() {
            let noticed = seeds
                .iter()
                .any(|seed| !violations(*seed, Some(*sabotage)).is_empty());
            assert!(noticed, "{sabotage:?}");
        }
    }
}
