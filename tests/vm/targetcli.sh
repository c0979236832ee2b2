#!/bin/bash
# The guide for LIO and targetcli, each command as it stands there: D-Bus service, loopback, split pair, saved and
# restored configuration, tape.
# limit: 300 s
. /scripts/lib.sh
fresh
rm -f /etc/target/saveconfig.json
cp /share/dist/org.kernel.TCMUService1.conf /etc/dbus-1/system.d/
[ -e /run/dbus/pid ] || dbus-daemon --system --fork
guide targetcli
say "a configuration that names nothing is refused by name"
targetcli /backstores/user:cleave create name=x size=1M cfgstring=nowhere 2>&1 | tee /tmp/refused || true
grep -q 'no volume or drive nowhere' /tmp/refused
targetcli clearconfig confirm=True
[ -z "$(ls /sys/class/uio 2>/dev/null)" ]
