# What the tests of LIO share. Sourced after lib.sh.

readonly core=/sys/kernel/config/target/core loop=/sys/kernel/config/target/loopback

# start_tcmu [OPTION...]: the array with the kernel front, on the modules that it needs.
start_tcmu() {
  modprobe -a target_core_user tcm_loop
  mountpoint -q /sys/kernel/config || mount -t configfs config /sys/kernel/config
  cleave-tcmu serve --listen 127.0.0.1:3260 "$@" >>/tmp/cleave.log 2>&1 &
  echo $! >/run/cleave.pid
  until_true 60 cleave status
}

# made HBA/NAME: its directory.
made() { mkdir -p "$core/$1" && echo "$core/$1"; }

# backstore HBA NAME SIZE OBJECT: what targetcli does, with a limit. It leaves nothing if it is refused.
backstore() {
  local at
  at=$(made "user_$1/$2")
  echo -n "dev_config=cleave/$4,dev_size=$3,hw_block_size=512,hw_max_sectors=1024,max_data_area_mb=64" >"$at/control"
  if timeout 30 sh -c "echo 1 >$at/enable"; then return 0; fi
  rmdir "$at" "$(dirname "$at")" || true
  return 1
}

# loopback N LUN NAME [HBA]: shows backstore NAME of user_0 (or HBA) on the loopback N.
loopback() {
  local at=$loop/naa.500140500000000$1
  mkdir -p "$at/tpgt_1/lun/lun_$2"
  [ -n "$(cat "$at/tpgt_1/nexus" 2>/dev/null)" ] || echo -n "naa.500140600000000$1" >"$at/tpgt_1/nexus"
  ln -s "$core/${4:-user_0}/$3" "$at/tpgt_1/lun/lun_$2/$3"
  udevadm settle
}

# no_loopback N LUN...: takes these, which are all, and the loopback away.
no_loopback() {
  local at=$loop/naa.500140500000000$1 lun
  shift
  for lun; do
    find "$at/tpgt_1/lun/lun_$lun" -type l -delete
    rmdir "$at/tpgt_1/lun/lun_$lun"
  done
  echo NULL >"$at/tpgt_1/nexus"
  rmdir "$at/tpgt_1" "$at"
}

# device_of VOLUME[@NAME]: its disk, by the name that the array gave it.
device_of() {
  local naa show=(show)
  [[ $1 != *@* ]] || show=(snapshot show)
  naa=$(cleave volume "${show[@]}" "$1" --json | sed -n 's/.*"naa": *"\(naa\.\)\{0,1\}\([0-9a-f]*\)".*/\2/p')
  udevadm settle
  readlink -f "/dev/disk/by-id/wwn-0x$naa"
}

# tape_node: the tape of the loopback.
tape_node() {
  modprobe st
  udevadm settle
  until_true 60 test -e /dev/nst0
  echo /dev/nst0
}
