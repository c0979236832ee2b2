#!/bin/bash
# Two portals, one disk: either path is cut (its packets dropped) and comes back under I/O, and nothing above multipath
# sees it.
# limit: 240 s
. /scripts/lib.sh
fresh
start_daemon
cleave volume create db 1GiB
cleave target create "$target"
cleave lun map db --target "$target" --lun 0
cat >/etc/multipath.conf <<'END'
defaults {
    find_multipaths yes
    user_friendly_names no
    polling_interval 1
    max_polling_interval 2
}
devices {
    device {
        vendor "CLEAVE"
        product "DISK"
        path_grouping_policy multibus
        no_path_retry 60
        fast_io_fail_tmo 2
    }
}
END
multipathd
iscsiadm -m discovery -t sendtargets -p 127.0.0.1
for setting in noop_out_interval noop_out_timeout; do
  iscsiadm -m node -T "$target" -o update -n "node.conn[0].timeo.$setting" -v 2
done
iscsiadm -m node -T "$target" --login
udevadm settle
paths() { multipathd show paths format '%d %t %o' | grep -c "active running"; }
both_paths() { [ "$(paths)" = 2 ]; }
one_path() { [ "$(paths)" = 1 ]; }
until_true 20 both_paths
multipath -ll
node=/dev/mapper/$(multipath -l -v1 "$(readlink -f "$disk")")

mkfs.ext4 -q "$node"
mount "$node" /mnt/primary
rm -f /tmp/enough
(
  until [ -e /tmp/enough ]; do
    fio --name=verify --directory=/mnt/primary --size=8M --rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 --direct=1 \
      --rate_iops=500 --verify=crc32c --verify_fatal=1 --output-format=terse >/tmp/fio.out || exit 1
  done
) &
fio=$!
still_writing() { kill -0 $fio || die "fio ended early: $(cat /tmp/fio.out)"; }
nft add table ip cut
nft 'add chain ip cut input { type filter hook input priority 0; }'
for portal in 127.0.0.2 127.0.0.1; do
  say "cut $portal"
  sleep 2
  nft add rule ip cut input ip daddr "$portal" tcp dport 3260 drop
  nft add rule ip cut input ip saddr "$portal" tcp sport 3260 drop
  until_true 40 one_path
  still_writing
  sleep 3
  still_writing
  nft flush chain ip cut input
  until_true 40 both_paths
  still_writing
done
touch /tmp/enough
wait $fio || die "fio: $(cat /tmp/fio.out)"
umount /mnt/primary
e2fsck -fn "$node"
refused grep -E 'dm-[0-9]+' <(dmesg | grep -iE 'error|abort|remount')
say "both paths are there and nothing above them failed"
multipath -ll
