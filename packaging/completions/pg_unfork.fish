# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pg_unfork_global_optspecs
    string join \n P/progress= h/help V/version
end

function __fish_pg_unfork_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pg_unfork_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pg_unfork_using_subcommand
    set -l cmd (__fish_pg_unfork_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -s V -l version -d 'Print version'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "plan" -d 'Work out what must be done, without writing below target or source'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "list" -d 'Write down everything that a plan asks a source, to plan without it'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "show" -d 'Show a plan'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "apply" -d 'Do exactly what a plan says; where an apply of it has begun, go on with it'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "status" -d 'Say how far an apply has come, and what to run next'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "undo" -d 'Take an apply back: the target is again as it was, bit for bit'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "verify" -d 'Prove that an applied target is what its plan and its journal say, until a server has run on it'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "clean" -d 'Drop what is kept for an undo'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "rewind" -d 'Plan and apply in one run, with the options, words and exit status of pg_rewind; see rewind --help. So does the program by itself where it is called pg_rewind'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "man" -d 'Write a manual page'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "completions" -d 'Write what a shell needs to complete command lines'
complete -c pg_unfork -n "__fish_pg_unfork_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -s D -l target-pgdata -d 'The data directory that is to follow the source' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l source-pgdata -d 'The source\'s data directory; its server must be stopped' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l source-server -d 'Connection string of the source, a running primary or standby' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l source-listing -d 'What pg_unfork list wrote of the source, which is not asked anything then; `-` is standard input' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -s o -l output -d 'Where the plan goes; without it, to standard output if that is no terminal' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l keep -d 'Leave what the target has of its own at these paths; may be given several times. A glob begins at the data directory, and covers what lies below, too; `*` stops at slashes, `**` does not' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l exclude -d 'Neither fetch nor remove anything at these paths; may be given several times' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l config-policy -d 'Whose settings the target has afterwards: postgresql.conf, what that includes, postgresql.auto.conf, pg_hba.conf, pg_ident.conf' -r -f -a "source\t'The source\'s'
target\t'Its own'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -s T -l tablespace-mapping -d 'Where a tablespace goes that only the source has: OLD=NEW, its directory there and the one on the target; may be given several times' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l restore-command -d 'The same by this command, of any settings independent: %f is the segment\'s name, %p the path where it must go. Its environment has PG_REWIND=1' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l config-file -d 'The target\'s main file of settings, where it is not in its data directory and its last command line does not name it' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l pg-bindir -d 'The directory of the target\'s postgres; without it, beside this program, in PATH, and where packages put it' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l compare -d 'Also say what is different from an earlier plan for this target' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l source-timeout -d 'How long a source server that is lost or silent is waited for, without getting any further; 0 gives up at once. An answer may take half of it' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -s R -l write-recovery-conf -d 'Make the target a standby of the source: standby.signal, and primary_conninfo from --source-server without its password'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l with-password -d 'Also write the password into primary_conninfo, in plain text: the one that the apply is given in its connection string or PGPASSWORD. The plan never holds it'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l check-only -d 'Say only whether a rewind is needed and possible: stops after the timelines, and what it writes cannot be applied'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -s c -l restore-target-wal -d 'Have WAL segments that the target\'s pg_wal lacks restored by the restore_command in its settings, which its own postgres tells. They are read where nobody else sees them, and never put into pg_wal'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l recover-target -d 'If the target did not stop in good order, have its own postgres recover it first, in single-user mode. This writes below the target'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l detailed-exitcode -d 'Exit with 0 where there is nothing to do, with 2 where there is, and with another status where the plan failed'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l allow-unreleased -d 'Accept a major version of PostgreSQL that is not released yet'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -l preview -d 'Tell how things stand while the target\'s server is still running, or has crashed: what would be lost, what would be copied. Reads the target\'s WAL up to its last valid record. Such a plan cannot be applied'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand list" -l source-pgdata -d 'The source\'s data directory; its server must be stopped' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand list" -l source-server -d 'Connection string of the source, a running primary or standby' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand list" -s o -l output -d 'Where the listing goes; without it, to standard output if that is no terminal' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand list" -l source-timeout -d 'How long a source server that is lost or silent is waited for, without getting any further; 0 gives up at once. An answer may take half of it' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand list" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand show" -l format -d 'How to show it' -r -f -a "text\t'A summary for a terminal'
markdown\t'A comment for a forge: short on top, details folded, never longer than a forge takes'
html\t'A page by itself'
json\t'The manifest itself'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand show" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -s D -l target-pgdata -d 'The target\'s data directory, where it is not at the planned path any more' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -l source-pgdata -d 'The source\'s data directory, where it is not at the planned path any more' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -l source-server -d 'Connection string of the source, where the planned one does not do' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -l expect-digest -d 'Refuse every plan but the one with this digest, as `pg_unfork show` gives it: `sha256:` and 64 digits' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -l sync-method -d 'How to make changes durable' -r -f -a "fsync\t'Each changed file and directory'
syncfs\t'Each changed file system as a whole'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -s j -l jobs -d 'How many connections to a source server may be read from at a time, 1 to 16: one on the same machine and four elsewhere, unless given. Where the server has no more, fewer are used. Of no effect for a stopped source' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -s r -l max-rate -d 'The most that is read from a source server in a second: kilobytes, or with the suffix k or M kilobytes or megabytes; 32k to 1024M. Not for a stopped source' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -l source-timeout -d 'How long a source server that is lost or silent is waited for, without getting any further; 0 gives up at once. An answer may take half of it' -r
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -l check -d 'Look at everything that an apply looks at before its first write, and write nothing'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -l no-undo -d 'Keep nothing of what is replaced: needs less room, and cannot be undone'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -s N -l no-sync -d 'Do not make changes durable: faster, but a crash of the machine may lose them'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand apply" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand status" -s D -l target-pgdata -d 'The target\'s data directory' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand status" -l format -d 'How to say it' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand status" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand undo" -s D -l target-pgdata -d 'The target\'s data directory' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand undo" -l sync-method -d 'How to make changes durable' -r -f -a "fsync\t'Each changed file and directory'
syncfs\t'Each changed file system as a whole'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand undo" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand undo" -s N -l no-sync -d 'Do not make changes durable: faster, but a crash of the machine may lose them'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand undo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand verify" -s D -l target-pgdata -d 'The target\'s data directory, where it is not at the planned path any more' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand verify" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand clean" -s D -l target-pgdata -d 'The target\'s data directory' -r -F
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand clean" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand clean" -l force -d 'Also where WAL goes that was never archived'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand clean" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand rewind" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand man" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand completions" -s P -l progress -d 'What standard error tells of work that takes long; without a value, plain' -r -f -a "auto\t'Bars on a terminal, a line now and then elsewhere'
plain\t'A line every second'
json\t'Nothing but events for programs, a JSON object in each line'
none\t'Nothing of progress'"
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "plan" -d 'Work out what must be done, without writing below target or source'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "list" -d 'Write down everything that a plan asks a source, to plan without it'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "show" -d 'Show a plan'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "apply" -d 'Do exactly what a plan says; where an apply of it has begun, go on with it'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "status" -d 'Say how far an apply has come, and what to run next'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "undo" -d 'Take an apply back: the target is again as it was, bit for bit'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "verify" -d 'Prove that an applied target is what its plan and its journal say, until a server has run on it'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "clean" -d 'Drop what is kept for an undo'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "rewind" -d 'Plan and apply in one run, with the options, words and exit status of pg_rewind; see rewind --help. So does the program by itself where it is called pg_rewind'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "man" -d 'Write a manual page'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "completions" -d 'Write what a shell needs to complete command lines'
complete -c pg_unfork -n "__fish_pg_unfork_using_subcommand help; and not __fish_seen_subcommand_from plan list show apply status undo verify clean rewind man completions help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
