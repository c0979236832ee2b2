#!/bin/bash
# The daemon is killed (-9) and started again under I/O, three times: the kernel logs in again by itself, fio never sees
# an error, and every block that it was told is written is there.
# limit: 180 s
. /scripts/lib.sh
fresh
start_daemon
cleave volume create db 256MiB
cleave target create "$target"
cleave lun map db --target "$target" --lun 0
login
verify=(--name=verify --filename="$(readlink -f "$disk")" --size=64M --bs=4k --rw=randwrite --ioengine=libaio --iodepth=16 --direct=1
  --norandommap=0 --verify=crc32c --verify_fatal=1 --randrepeat=1 --output-format=terse)
fio "${verify[@]}" --rate_iops=700 --do_verify=0 >/tmp/fio.out &
fio=$!
for time in 1 2 3; do
  sleep 2
  kill -0 $fio || die "fio ended before kill $time: $(cat /tmp/fio.out)"
  kill_daemon
  sleep 1
  start_daemon
  say "killed and started for the ${time}. time"
done
wait $fio || die "fio: $(cat /tmp/fio.out)"
echo 3 >/proc/sys/vm/drop_caches
fio "${verify[@]}" --verify_only >/tmp/fio.out || die "fio: $(cat /tmp/fio.out)"
refused grep -E 'I/O error|offline' <(dmesg)
