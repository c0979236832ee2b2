#!/bin/bash
# LIO through TCMU, by raw configfs: a disk on the loopback with ext4, fio and md5; what is refused; a device that comes
# and goes; a clean stop under I/O; kill -9 under I/O, three times; and no task left in state D.
# limit: 800 s
. /scripts/lib.sh
. /scripts/tcmu-lib.sh
fresh
start_tcmu
cleave volume create db 256MiB
say "what is not so is refused, and the operator's write returns"
refused backstore 0 wrong 1048576 db
refused backstore 0 none 268435456 nowhere
grep -q 'create it with size=268435456' /tmp/cleave.log
for config in cleave cleave/ cleave/../db; do
  echo -n "dev_config=$config,dev_size=1048576" >"$(made user_8/misnamed)/control"
  refused timeout 30 sh -c "echo 1 >$core/user_8/misnamed/enable"
done
rmdir "$core/user_8/misnamed" "$core/user_8"
say "a foreign subtype is left alone: it waits for its own handler, and whoever does not wait gets it"
echo -n dev_config=other/x,dev_size=1048576 >"$(made user_9/foreign)/control"
echo 1 >"$core/user_9/foreign/enable" &
foreign=$!
sleep 3
kill -0 $foreign || die "somebody answered for another handler's device"
for switch in block_netlink=1 reset_netlink=1 block_netlink=0; do
  echo "${switch#*=}" >"/sys/module/target_core_user/parameters/${switch%=*}"
done
refused wait $foreign
rmdir "$core/user_9/foreign"
echo -n dev_config=other/x,dev_size=1048576,nl_reply_supported=-1 >"$(made user_9/foreign)/control"
timeout 10 sh -c "echo 1 >$core/user_9/foreign/enable"
rmdir "$core/user_9/foreign" "$core/user_9"

say "a disk"
backstore 0 db 268435456 db
loopback 1 0 db
sd=$(device_of db)
lsscsi -g
sg_inq "$sd"
sg_vpd -p di "$sd" | tee /tmp/di
refused grep -q 'target port' /tmp/di
sg_opcodes -q "$sd" >/dev/null
sg_readcap -l "$sd"
mkfs.ext4 -q "$sd"
mount "$sd" /mnt/primary
dd if=/dev/urandom of=/mnt/primary/file bs=1M count=32 status=none
md5sum /mnt/primary/file >/tmp/sum
umount /mnt/primary
echo 3 >/proc/sys/vm/drop_caches
mount "$sd" /mnt/primary
md5sum -c /tmp/sum
fstrim -v /mnt/primary
umount /mnt/primary
e2fsck -fn "$sd"
fio --name=v --filename="$sd" --size=64M --bs=4k --rw=randwrite --ioengine=libaio --iodepth=32 --direct=1 --verify=crc32c >/tmp/fio.out
echo "-- loopback 4 KiB randwrite: $(grep -m1 -o 'IOPS=[^,]*' /tmp/fio.out)"
sg_unmap --force --lba=0 --num=2048 "$sd"
sg_get_lba_status --lba=0 "$sd" | head -3

say "a snapshot is a disk, too: it shows its instant, and takes writes that go to it alone"
blockdev --flushbufs "$sd"
md5sum <"$sd" >/tmp/noon
cleave volume snapshot create db noon
dd if=/dev/urandom of="$sd" bs=1M count=32 oflag=direct status=none
backstore 3 noon 268435456 db@noon
loopback 2 0 noon user_3
snapshot=$(device_of db@noon)
md5sum <"$snapshot" | cmp - /tmp/noon
md5sum <"$sd" >/tmp/later
dd if=/dev/zero of="$snapshot" bs=1M count=8 oflag=direct status=none
blockdev --flushbufs "$sd" "$snapshot"
cmp -n 8388608 "$snapshot" /dev/zero
md5sum <"$sd" | cmp - /tmp/later
refused cleave volume snapshot delete db@noon
no_loopback 2 0
rmdir "$core/user_3/noon" "$core/user_3"
cleave volume snapshot delete db@noon

say "a volume in use cannot be deleted; a resize is seen"
refused cleave volume delete db
cleave volume resize db 512MiB
echo 536870912 >"$core/user_0/db/attrib/dev_size"
refused sh -c "echo 1048576 >$core/user_0/db/attrib/dev_size"
until_true 60 sh -c "echo 1 >/sys/block/$(basename "$sd")/device/rescan; [ \$(blockdev --getsz $sd) = 1048576 ]"

say "stopped in order under I/O, and killed, with a new daemon each time"
verify=(--name=verify --filename="$sd" --size=128M --bs=4k --rw=randwrite --ioengine=libaio --iodepth=16 --direct=1
  --norandommap=0 --verify=crc32c --verify_fatal=1 --randrepeat=1)
fio "${verify[@]}" --rate_iops=1500 --do_verify=0 >/tmp/fio.out &
fio=$!
for how in stop kill kill kill; do
  sleep 2
  kill -0 $fio || die "fio ended before the $how: $(cat /tmp/fio.out)"
  "${how}_daemon"
  sleep 1
  start_tcmu
done
wait $fio || die "fio: $(cat /tmp/fio.out)"
echo 3 >/proc/sys/vm/drop_caches
fio "${verify[@]}" --verify_only >/tmp/fio.out || die "fio: $(cat /tmp/fio.out)"
nothing_is_stuck

say "an operator's request of a killed daemon's time ends when the next one starts"
kill_daemon
backstore 1 late 536870912 db &
late=$!
sleep 1
start_tcmu
if wait $late; then rmdir "$core/user_1/late" "$core/user_1"; else echo "(it was refused)"; fi
nothing_is_stuck

say "an operator's request that comes while the daemon stops ends too"
for round in 1 2 3; do
  (sleep 0.0$round && backstore 2 during 536870912 db && rmdir "$core/user_2/during" "$core/user_2") &
  late=$!
  stop_daemon
  wait $late || echo "(it was refused)"
  start_tcmu
done
nothing_is_stuck

say "everything goes"
no_loopback 1 0
rmdir "$core/user_0/db" "$core/user_0"
cleave volume delete db
stop_daemon
grep -q unblocked /sys/module/target_core_user/parameters/block_netlink
