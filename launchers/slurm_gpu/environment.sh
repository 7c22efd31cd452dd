# Settings of every job, and of a shell in which you manage campaigns; edit them as your site needs.
# module load cuda
export PATH={{ bin }}:"$PATH"
unset ESEN_FLOWS_MONGO_URI; export ESEN_FLOWS_MONGO_URI_FILE={{ uri_file }}
export ESEN_FLOWS_DATABASE={{ database? }}
# For FireWorks' own commands (rlaunch, lpad), after: esen-flows db init {{ folder }}/database
[ ! -e {{ folder }}/database/jobflow.yaml ] || export JOBFLOW_CONFIG_FILE={{ folder }}/database/jobflow.yaml
