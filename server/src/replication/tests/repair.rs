//! Copies that are sent a slot anew go on counting: what they have acknowledged is there, whoever dies meanwhile.

use super::*;

/// What a client was told that a copy holds.
struct Acknowledged {
    key: Vec<u8>,
    recorded: Recorded,
    is_held: bool,
}

/// The slot, and who owns it and who holds copies.
struct Scene {
    stage: Stage,
    slot: u16,
    owner: Arc<Node>,
    holders: Vec<Arc<Node>>,
    written: Vec<Acknowledged>,
}

impl Scene {
    async fn new(copies: u8) -> Scene {
        let (mut stage, slot) = (Stage::new(copies, copies), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let holders = stage.nodes.iter().filter(|node| !node.owns(slot)).map(Arc::clone).collect();
        Scene { stage, slot, owner, holders, written: Vec::new() }
    }

    fn write(&mut self, value: &[u8]) {
        let key = format!("{{a}}{}", self.written.len()).into_bytes();
        let recorded = self.owner.execute(&SET, 0, &[b"set", &key, value]);
        self.written.push(Acknowledged { key, recorded, is_held: false });
    }

    /// Notes what copies are known to hold by now; a client may have been told so.
    fn look(&mut self) {
        for write in self.written.iter_mut().filter(|write| !write.is_held) {
            write.is_held = self.owner.replication.copies(&write.recorded) > 0;
        }
    }

    async fn pass(&mut self, most: usize) {
        for _ in 0..most {
            turns(1).await;
            self.look();
        }
    }

    /// The copies hold something else all at once, which the next digest shows.
    fn lead_astray(&self) {
        for holder in &self.holders {
            let key = holder.store.key(0, self.slot, b"{a}astray");
            holder.store.lock(self.slot, START).set_string(&key, b"x", Expiry::None);
        }
        self.owner.replication.audit_slot(&*self.owner, self.slot);
    }

    fn has(&self, node: &Node, key: &[u8]) -> bool {
        node.store.lock(self.slot, START).read(&node.store.key(0, self.slot, key)).is_some()
    }

    /// The owner dies; what somebody was told that a copy holds is there.
    async fn die(mut self) {
        self.look();
        self.stage.kill(self.owner.number);
        self.stage.settle(&slots()).await;
        let heir = self.stage.owner(self.slot);
        let held = self.written.iter().filter(|write| write.is_held);
        let lost: Vec<_> = held.filter(|write| !self.has(&heir, &write.key)).map(|write| &write.key).collect();
        assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), self.written.len());
    }
}

/// Copies go astray all at once, feeds break, writes go on, and then the owner dies.
async fn live_and_die(seed: u64) {
    let mut random = Random(seed);
    let mut scene = Scene::new(2 + random.below(2) as u8).await;
    (0..random.below(60)).for_each(|_| scene.write(b"v"));
    scene.pass(2_000).await;
    if random.below(3) > 0 {
        scene.lead_astray();
    }
    for _ in 0..random.below(30) {
        match random.below(10) {
            0..5 => scene.write(&vec![b'w'; random.below(40_000)]),
            5..8 => scene.pass(random.below(60)).await,
            8 => scene.stage.link(),
            _ => {
                let links = scene.stage.linked();
                scene.stage.cut(links[random.below(links.len())]);
            }
        }
    }
    scene.die().await;
}

#[test]
fn what_a_copy_has_acknowledged_outlives_the_owner_during_repairs() {
    // More of them: FOREBAY_SEEDS=1000.
    let seeds = std::env::var("FOREBAY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10);
    for seed in 1..=seeds {
        println!("seed {seed}");
        run(live_and_die(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed)));
    }
}

/// Who reads copies finds what they hold while they are sent the slot anew, and at the end nothing else.
#[test]
fn a_copy_keeps_what_it_has_until_that_comes_anew() {
    run(async {
        let mut scene = Scene::new(3).await;
        (0..60).for_each(|_| scene.write(b"v"));
        scene.stage.settle(&slots()).await;
        scene.lead_astray();
        let sent = || scene.owner.replication.counts().slots_sent.load(Relaxed);
        let (before, mut meanwhile) = (sent(), 0);
        while scene.holders.iter().any(|holder| scene.has(holder, b"{a}astray")) {
            turns(1).await;
            meanwhile += usize::from(sent() > before);
            for holder in &scene.holders {
                assert!(holder.replication.has_whole_copy(scene.slot));
                assert!(scene.written.iter().all(|write| scene.has(holder, &write.key)));
            }
        }
        assert!(sent() == before + 2 && meanwhile > 3, "{meanwhile}");
        scene.stage.settle(&slots()).await;
    });
}

/// What a copy holds comes to the end of its slot with a new owner, whose history is no other's then.
#[test]
fn an_heir_that_was_being_repaired_sends_the_slot_to_all() {
    run(async {
        let mut scene = Scene::new(3).await;
        (0..60).for_each(|_| scene.write(b"v"));
        scene.stage.settle(&slots()).await;
        scene.lead_astray();
        while !scene.holders.iter().all(|holder| holder.replication.log(scene.slot).lock().renewal.is_some()) {
            turns(1).await;
        }
        scene.look();
        scene.die().await;
    });
}

/// A peer that is far behind is told to forget what is filled in, which is kept here: that is no fault.
#[test]
fn what_is_filled_in_under_pressure_has_no_slot_sent_again() {
    run(async {
        let scene = Scene::new(3).await;
        let (owner, slot) = (Arc::clone(&scene.owner), scene.slot);
        // What is on its way is large, and what is there is not: that has a digest.
        owner.execute(&SET, 0, &[b"set", b"{a}large", &vec![b'v'; 9 << 20]]);
        owner.execute(&SET, 0, &[b"set", b"{a}large", b"v"]);
        let key = owner.store.key(0, slot, b"{a}filled");
        let mut keyspace = owner.store.lock(slot, START);
        assert!(owner.replication.log(slot).lock().is_pressed());
        let fence = keyspace.begin_load(&key);
        keyspace.fill(&key, Some(FillValue::String(b"v")), Fill { filled_at: START, ..Fill::default() }, &fence);
        owner.replication.record_fill(&mut keyspace, &key);
        drop(keyspace);
        let wait = async |scene: &Scene| {
            let mut told = Recorded::default();
            scene.owner.replication.seen(slot, &mut told);
            scene.owner.replication.acknowledged(&told, 2).await;
        };
        wait(&scene).await;
        owner.replication.audit_slot(&*owner, slot);
        wait(&scene).await;
        let repaired = |scene: &Scene| -> u64 {
            scene.holders.iter().map(|holder| holder.replication.counts().repaired.load(Relaxed)).sum()
        };
        assert_eq!((repaired(&scene), scene.has(&owner, b"{a}filled")), (0, true));
        // Once the slot was sent whole, digests go again.
        let holder = Arc::clone(&scene.holders[0]);
        owner.replication.log(slot).lock().target(holder.number).unwrap().ask(slot);
        while !scene.has(&holder, b"{a}filled") {
            turns(1).await;
        }
        wait(&scene).await;
        scene.lead_astray();
        wait(&scene).await;
        assert_eq!(repaired(&scene), 1);
    });
}
